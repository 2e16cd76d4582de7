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
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.querySelectorAll("thead th")];
  const worth = (row, place) => {
    const text = row.children[place].textContent.replaceAll(",", "");
    return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  };
  const order = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === "");
    return typeof one === typeof other ? (one > other) - (one < other) : typeof one === "number" ? -1 : 1;
  };
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => (down ? -1 : 1) * order(worth(one, place), worth(other, place)));
      table.tBodies[0].append(...rows);
    });
  });
}
