"""What methods of Hugging Face PEFT share: injecting, saving, loading, and strangers' configurations."""
