"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const live = JSON.parse(document.getElementById("live").textContent);
const wall = document.getElementById("wall");
const filters = document.getElementById("filters");
const count = document.getElementById("count");
const where = document.getElementById("where");
const view = document.getElementById("view");
const compare = document.getElementById("compare");
const storage = "fluxkit-picks:" + data.id;
const words = { keep: "kept", reject: "rejected" };
let picks = {};
let current = null; // the image that has the focus, or is in full view
let chosen = null; // the first of two to compare
let saving = Promise.resolve();

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(storage)) || {};
  } catch {
    return {}; // storage is off, or holds something else
  }
}

picks = live ? live.picks : { ...data.picks, ...remembered() };
where.textContent = live
  ? "Picks are saved to picks.json in this folder."
  : "Picks stay in this browser: download them, or open the page with `fluxkit gallery` to save them to picks.json.";

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function caption(image, brief = false) {
  const parts = [image.checkpoint];
  if (image.strength !== null && (!brief || data.axes.includes("strength"))) parts.push("strength " + image.strength);
  if (!brief || data.axes.includes("steps")) parts.push(image.steps + " steps");
  if (image.cache) parts.push("first-block cache " + image.cache + " (lossy)");
  if (image.guidance && (!brief || data.axes.includes("guidance"))) parts.push("guidance " + image.guidance);
  return parts.join(" · ");
}

function describe(image) {
  const pick = words[picks[image.key]] || "undecided";
  return `${image.name}, seed ${image.seed}, ${caption(image)}, ${pick}`;
}

const lazy = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      entry.target.src = data.images[entry.target.dataset.index].thumbnail;
      lazy.unobserve(entry.target);
    }
  },
  { rootMargin: "800px 0px" },
);

function card(image, index) {
  const picture = element("img", { alt: "", width: image.width, height: image.height, decoding: "async" });
  picture.dataset.index = index;
  const text = element("span", { className: "words" }, element("b", { textContent: "seed " + image.seed }), " " + caption(image, true));
  const made = element("button", { className: "card", type: "button", tabIndex: -1 }, picture, text);
  made.dataset.index = index;
  image.card = made;
  lazy.observe(picture);
  return element("li", {}, made);
}

function draw() {
  const lists = new Map();
  data.images.forEach((image, index) => {
    if (!lists.has(image.prompt)) {
      const list = element("ul", { className: "wall" });
      const words = element("p", { className: "prompt", textContent: data.prompts[image.prompt] });
      const section = element("section", {}, element("h2", { textContent: image.name }), words, list);
      wall.append(section);
      lists.set(image.prompt, list);
    }
    lists.get(image.prompt).append(card(image, index));
    mark(image);
  });
}

function mark(image) {
  const pick = picks[image.key];
  image.card.querySelector(".mark")?.remove();
  if (pick) {
    image.card.dataset.pick = pick;
    image.card.append(element("span", { className: "mark", textContent: words[pick] }));
  } else {
    delete image.card.dataset.pick;
  }
  image.card.setAttribute("aria-label", describe(image));
}

function visible() {
  return data.images.filter((image) => !image.card.parentElement.hidden);
}

function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  for (const image of data.images) {
    const pick = picks[image.key] || "none";
    let fits = !wanted.pick || wanted.pick === pick;
    for (const axis of data.axes) {
      if (wanted[axis]) fits = fits && image.places[axis] === Number(wanted[axis]);
    }
    image.card.parentElement.hidden = !fits;
  }
  for (const section of wall.children) section.hidden = !section.querySelector("li:not([hidden])");
  const shown = visible();
  if (!shown.includes(current)) select(shown[0] || null, false);
  tally();
}

function tally(said) {
  const kept = data.images.filter((image) => picks[image.key] === "keep").length;
  const dropped = data.images.filter((image) => picks[image.key] === "reject").length;
  const text = `${visible().length} of ${data.images.length} shown · ${kept} kept · ${dropped} rejected`;
  count.textContent = said ? `${said} · ${text}` : text;
}

function select(image, focus = true) {
  if (current) current.card.tabIndex = -1;
  current = image;
  if (!image) return;
  image.card.tabIndex = 0;
  if (focus) {
    image.card.focus({ preventScroll: true });
    image.card.scrollIntoView({ block: "nearest" });
  }
}

function save(key, pick) {
  if (!live) {
    try {
      localStorage.setItem(storage, JSON.stringify(picks));
    } catch {
      where.textContent = "This browser keeps nothing for this page: download the picks before you close it.";
    }
    return;
  }
  const body = JSON.stringify({ key, pick });
  saving = saving
    .then(() => fetch("picks", { method: "POST", headers: { "Content-Type": "application/json" }, body }))
    .then((answer) => {
      if (!answer.ok) throw new Error(answer.statusText);
      where.textContent = "Picks are saved to picks.json in this folder.";
    })
    .catch(() => {
      where.textContent = "Not saved: `fluxkit gallery` has ended. Start it again, or download the picks.";
      tally("Not saved");
    });
}

function pick(image, value) {
  if (!image) return;
  if (value) picks[image.key] = value;
  else delete picks[image.key];
  mark(image);
  tally(`${image.name}, seed ${image.seed}: ${words[value] || "undecided"}`);
  save(image.key, value);
}

function full(image) {
  const picture = element("img", { src: encodeURIComponent(image.file), alt: describe(image) });
  picture.onerror = () => {
    picture.onerror = null;
    picture.src = image.thumbnail; // the page was sent without its pictures
  };
  const state = words[picks[image.key]];
  const text = `${image.name} · seed ${image.seed} · ${caption(image)}${state ? " · " + state : ""}`;
  return element("figure", {}, picture, element("figcaption", { textContent: text }));
}

function show(image) {
  if (!image) return;
  select(image, false);
  view.last = image;
  view.querySelector(".stage").replaceChildren(full(image));
  if (!view.open) view.showModal();
}

function step(by) {
  const shown = visible();
  const next = shown[shown.indexOf(current) + by];
  if (next) view.open ? show(next) : select(next);
}

function row(by) {
  const box = current.card.getBoundingClientRect();
  const middle = box.left + box.width / 2;
  let best = null;
  for (const image of visible()) {
    const other = image.card.getBoundingClientRect();
    const down = by * (other.top - box.top);
    if (down < 1) continue;
    const aside = Math.abs(other.left + other.width / 2 - middle);
    if (!best || down < best.down - 1 || (down < best.down + 1 && aside < best.aside)) best = { image, down, aside };
  }
  if (best) select(best.image);
}

function choose(image) {
  if (chosen === null) {
    chosen = image;
    image.card.classList.add("chosen");
    tally("Press C on another image to compare");
    return;
  }
  const pair = [chosen, image];
  chosen.card.classList.remove("chosen");
  chosen = null;
  tally();
  if (pair[0] === pair[1]) return;
  compare.pair = pair;
  compare.last = image;
  compare.querySelector(".stage").replaceChildren(...pair.map(full));
  compare.showModal();
}

function act(what) {
  if (what === "close") return (view.open ? view : compare).close();
  if (what === "previous" || what === "next") return step(what === "next" ? 1 : -1);
  if (compare.open) {
    const [left, right] = what === "keep-left" ? compare.pair : compare.pair.toReversed();
    pick(left, "keep");
    pick(right, "reject");
    compare.querySelector(".stage").replaceChildren(...compare.pair.map(full));
    return;
  }
  if (what === "compare") {
    view.close();
    return choose(current);
  }
  pick(current, what === "clear" ? null : what);
  if (view.open) show(current);
}

wall.addEventListener("click", (event) => {
  const hit = event.target.closest(".card");
  if (hit) show(data.images[hit.dataset.index]);
});
wall.addEventListener("focusin", (event) => {
  const hit = event.target.closest(".card");
  if (hit) select(data.images[hit.dataset.index], false);
});
for (const dialog of [view, compare]) {
  dialog.addEventListener("click", (event) => {
    const what = event.target.dataset?.do;
    if (what) act(what);
  });
  // The browser gives the focus back to the image that it was opened from; the arrows may have gone on since.
  dialog.addEventListener("close", () => select(dialog.last));
}
document.getElementById("help").addEventListener("click", () => document.getElementById("keys").showModal());
document.getElementById("download").addEventListener("click", () => {
  const text = JSON.stringify({ format: 1, picks }, null, 2) + "\n";
  const link = element("a", { href: "data:application/json," + encodeURIComponent(text), download: "picks.json" });
  link.click();
});
filters.addEventListener("change", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("keys").open) return;
  if (event.target.closest("select")) return;
  const key = event.key.toLowerCase();
  if (compare.open) return;
  const keys = { k: "keep", x: "reject", u: "clear" };
  if (keys[key]) {
    if (current) act(keys[key]);
  } else if (key === "arrowright" || key === "arrowleft") {
    if (current) step(key === "arrowright" ? 1 : -1);
  } else if ((key === "arrowdown" || key === "arrowup") && current && !view.open) {
    row(key === "arrowdown" ? 1 : -1);
  } else if (key === "c" && current) {
    if (view.open) view.close();
    choose(current);
  } else {
    return;
  }
  event.preventDefault();
});

draw();
filter();
