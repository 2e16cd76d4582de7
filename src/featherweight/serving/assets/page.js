"use strict";
const byId = (id) => document.getElementById(id);
const [unlock, ask, message, answers] = ["unlock", "ask", "message", "answers"].map(byId);
let key = "";
let models = [];

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, bad) {
  message.textContent = text;
  message.className = bad ? "bad" : "";
}

async function request(path, body) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const options = { headers, method: body ? "POST" : "GET", body: body && JSON.stringify(body), cache: "no-store" };
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const content = await answer.json();
  const again = answer.headers.get("Retry-After");
  const error = new Error(content.detail + (again ? `; try again in ${again} s` : ""));
  error.status = answer.status;
  throw error;
}

async function call(path, body) {
  return (await request(path, body)).json();
}

// A text as it is written, part by part (server-sent events); all of it in the end.
async function written(path, body, heard) {
  const answer = await request(path, { ...body, stream: true });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events.filter((one) => one && !one.endsWith("[DONE]"))) {
      const { choices, error } = JSON.parse(event.slice("data: ".length));
      if (error) throw new Error(error.message);
      const part = choices[0]?.delta?.content ?? choices[0]?.text ?? "";
      text += part;
      heard(part);
    }
  }
}

async function start() {
  try {
    models = (await call("v1/models")).models;
  } catch (error) {
    if (error.status !== 401) return say(error.message, true);
    say(key ? "That is not the key." : "", true);
    unlock.hidden = false;
    return byId("key").select();
  }
  say("");
  unlock.hidden = true;
  ask.hidden = false;
  byId("models").append(...models.filter((one) => !one.name.includes("@")).flatMap(boxes));
  byId("models").addEventListener("change", fit);
  fit();
  byId("text").focus();
}

function chosen() {
  return [...document.querySelectorAll("input[name=model]:checked")].map((box) => box.value);
}

// Models of pairs are asked for two texts, which are called what they were tuned on.
function pairs(name) {
  return models.find((one) => one.name === name).texts.length === 2;
}

// What a model that answers with text is asked: "text" or "messages"; of others empty.
function writes(name) {
  return models.find((one) => one.name === name).writes;
}

function fit() {
  const talks = chosen().some(writes);
  byId("again").hidden = !talks;
  byId("hint").textContent = talks ? "Ctrl+Enter sends." : "Several texts: one a line. Ctrl+Enter asks.";
  const first = models.find((one) => chosen().includes(one.name) && pairs(one.name));
  byId("pair").hidden = byId("pair").inert = !first;
  const [one, other] = first && chosen().every(pairs) ? first.texts : ["Text", "Second text"];
  document.querySelector("label[for=text]").textContent = talks ? "Message" : one;
  document.querySelector("label[for=second]").textContent = other;
}

function lines(id) {
  return byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
}

function boxes(model) {
  const names = model.base ? [[model.name, model.name], [model.base, `${model.name}, untuned`]] : [[model.name, model.name]];
  return names.map(([value, title]) => {
    const label = element("label");
    const box = element("input");
    Object.assign(box, { type: "checkbox", value, checked: true, name: "model" });
    label.append(box, title);
    return label;
  });
}

// What a reply holds, and how that is shown: the first whose key is there; what nobody knows is shown as it came.
const shown = { probabilities, value, entities, text: ({ text }) => [element("p", text, "written")] };

function probabilities(prediction) {
  const list = element("dl");
  const sorted = Object.entries(prediction.probabilities).sort((one, other) => other[1] - one[1]);
  for (const [label, probability] of sorted) {
    const bar = element("meter");
    Object.assign(bar, { min: 0, max: 1, value: probability });
    bar.setAttribute("aria-label", `${label} ${probability.toFixed(4)}`);
    const found = element("dd", probability.toFixed(4));
    found.append(bar);
    list.append(element("dt", label), found);
  }
  const answered = prediction.labels ? prediction.labels.join(", ") || "no label" : prediction.label;
  return [element("p", answered, "label"), list];
}

function value(prediction) {
  const ends = prediction.interval;
  const made = [element("p", prediction.value.toPrecision(4), "label")];
  if (ends) made.push(element("p", `${ends[0].toPrecision(4)} to ${ends[1].toPrecision(4)}`));
  return made;
}

function entities(prediction, text) {
  const characters = Array.from(text);  // as the server counts them
  const marked = element("p", undefined, "marked");
  let place = 0;
  for (const one of prediction.entities) {
    marked.append(characters.slice(place, one.start).join(""));
    const mark = element("mark", characters.slice(one.start, one.end).join(""));
    mark.append(element("small", `${one.entity_group} ${one.score.toFixed(2)}`));
    marked.append(mark);
    place = one.end;
  }
  marked.append(characters.slice(place).join(""));
  marked.dir = "auto";
  return [marked];
}

function frame(name, content) {
  const run = name.split("@")[0];
  const made = element("div", undefined, name === run ? "card tuned" : "card");
  made.append(element("h3", name === run ? run : `${run}, untuned`), ...content);
  return made;
}

function card(name, prediction, text) {
  const kind = Object.keys(shown).find((key) => key in prediction);
  const made = frame(name, []);
  made.append(...(kind ? shown[kind](prediction, text) : [element("pre", JSON.stringify(prediction, null, 1))]));
  if (prediction.truncated) made.append(element("p", "The text was cut: the model saw a part of it.", "note"));
  return made;
}

// What was said to and by each model that is talked with.
let said = {};

async function talk(name, text, shown) {
  const before = (said[name] ??= []);
  const message = { role: "user", content: text };
  const chats = writes(name) === "messages";
  const body = chats ? { model: name, messages: [...before, message] } : { model: name, prompt: text };
  const reply = await written(chats ? "v1/chat/completions" : "v1/completions", body, (part) => shown.append(part));
  if (chats) before.push(message, { role: "assistant", content: reply });
}

async function converse(text, names) {
  const cards = element("div", undefined, "cards");
  const article = element("article");
  const quote = element("blockquote", text);
  quote.dir = "auto";
  article.append(quote, cards);
  answers.prepend(article);
  const asked = names.map((name) => {
    const shown = element("p", undefined, "written");
    shown.dir = "auto";
    cards.append(frame(name, [shown]));
    return talk(name, text, shown);
  });
  await Promise.all(asked);
  byId("text").value = "";
}

async function answer() {
  const talkers = chosen().filter(writes);
  const whole = byId("text").value.trim();
  if (talkers.length && whole) return busy(() => converse(whole, talkers));
  const texts = lines("text");
  const names = chosen();
  const seconds = names.some(pairs) ? lines("second") : [];
  if (!texts.length) return say("Write a text first.", true);
  if (!names.length) return say("Choose a model.", true);
  if (names.some(pairs) && seconds.length !== texts.length) {
    return say("Write as many second texts as first ones: one a line.", true);
  }
  const asked = (name) => texts.map((text, index) => (pairs(name) ? { text, text_pair: seconds[index] } : text));
  await busy(async () => {
    const found = await Promise.all(names.map((model) => call("v1/predict", { texts: asked(model), model })));
    answers.replaceChildren(...texts.map((text, index) => {
      const article = element("article");
      const quotes = [text, ...seconds.slice(index, index + 1)].map((one) => element("blockquote", one));
      for (const quote of quotes) quote.dir = "auto";
      const cards = element("div", undefined, "cards");
      cards.append(...names.map((name, number) => card(name, found[number].predictions[index], text)));
      article.append(...quotes, cards);
      return article;
    }));
  });
}

async function busy(work) {
  const button = ask.querySelector("button");
  button.setAttribute("aria-busy", "true");
  say("Asking …");
  try {
    await work();
    say("");
  } catch (error) {
    say(error.message, true);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value;
  start();
});
ask.addEventListener("submit", (event) => {
  event.preventDefault();
  answer();
});
byId("again").addEventListener("click", () => {
  said = {};
  answers.replaceChildren();
  byId("text").focus();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask.requestSubmit();
});
byId("schema").addEventListener("click", async (event) => {
  if (!key) return;
  event.preventDefault();
  const text = JSON.stringify(await call("openapi.json"), null, 1);
  location.assign(URL.createObjectURL(new Blob([text], { type: "application/json" })));
});
start();
