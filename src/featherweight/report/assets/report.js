"use strict";
const controls = document.querySelector(".controls");
if (controls) {
  const [words, kind, count] = ["words", "kind", "count"].map((name) => document.getElementById(name));
  const rows = [...document.querySelectorAll(".examples tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      const fits = (!kind.value || row.dataset.kind === kind.value) && wanted.every((word) => texts[index].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${rows.length} examples`;
  };
  controls.hidden = false;
  controls.addEventListener("input", show);
  show();
}
