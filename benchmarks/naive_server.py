"""What a tutorial shows: FastAPI, the transformers pipeline, one text a request. ``naive_server.py RUN PORT``.

The adapter is merged into its base model, which is the fastest that this arm can be."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import TextClassificationPipeline

from featherweight.inference.loading import load

loaded = load(sys.argv[1])
classify = TextClassificationPipeline(
    model=loaded.model.merge_and_unload(), tokenizer=loaded.tokenizer, device="cpu", top_k=None
)
app = FastAPI()


class Request(BaseModel):
    texts: list[str]


@app.post("/v1/predict")
def predict(request: Request) -> dict[str, list[dict[str, object]]]:
    answers = [classify(text, truncation=True, max_length=loaded.cutting.max_length)[0] for text in request.texts]
    return {"predictions": [{one["label"]: one["score"] for one in answer} for answer in answers]}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
