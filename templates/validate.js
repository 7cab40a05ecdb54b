(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const cards = all(".card");
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const form = document.getElementById("filters");
  const count = document.getElementById("count");
  const nothing = document.getElementById("nothing");

  function apply() {
    const severity = form.elements.severity.value;
    const code = form.elements.code.value;
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, index) => {
      const fits =
        (severity === "all" || card.dataset.severities.split(" ").includes(severity)) &&
        (code === "" || card.dataset.codes.split(" ").includes(code)) &&
        words.every((word) => texts[index].includes(word));
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    count.textContent = `${shown} of ${cards.length} shown`;
    nothing.hidden = shown > 0;
  }

  function crops() {
    const wanted = form.elements.crop.value;
    all(".crop").forEach((box) => {
      box.hidden = wanted !== "all" && !box.dataset.resolutions.split(" ").includes(wanted);
    });
  }

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.crop.addEventListener("input", crops);
  form.addEventListener("reset", () => setTimeout(() => { apply(); crops(); }));
  document.getElementById("clear").addEventListener("click", () => form.reset());
  apply();
})();
