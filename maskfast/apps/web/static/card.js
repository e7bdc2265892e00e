// One picture on the page: its thumbnail, its result and, when asked for, where the model looked.

const SIDE = 640;
const WORDS = { mask: "Mask", no_mask: "No mask", failed: "Failed", waiting: "Scoring…" };

export function judge(row, threshold) {
  if (row.status !== "ok") return "failed";
  return row.probability >= threshold ? "mask" : "no_mask";
}

export function showBar(bar, probability, threshold) {
  const percent = Math.round(probability * 100);
  bar.setAttribute("aria-valuenow", String(percent));
  bar.querySelector(".fill").style.width = `${probability * 100}%`;
  bar.querySelector(".tick").style.left = `${threshold * 100}%`;
}

// No calibrated probability is ever quite 0 or 100 %.
export function writePercent(probability) {
  if (probability < 0.001) return "< 0.1 %";
  if (probability > 0.999) return "> 99.9 %";
  return `${(probability * 100).toFixed(1)} %`;
}

export class Card {
  constructor(name, blob, { onRemove }) {
    this.name = name;
    this.blob = blob;
    this.row = null;
    this.thumbnail = null;
    this.heat = null;
    this.heatFailed = "";
    this.state = "waiting";
    this.abort = new AbortController();
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.find(".name").textContent = name;
    this.find(".name").title = name;
    this.find(".bar").setAttribute("aria-label", `Probability of a mask in ${name}`);
    this.find(".badge-text").textContent = WORDS.waiting;
    this.find("canvas").setAttribute("aria-label", name);
    this.find(".remove").setAttribute("aria-label", `Remove ${name}`);
    this.find(".remove").addEventListener("click", () => onRemove(this));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  // Draws a small copy, so that hundreds of large photos fit in memory; formats a browser cannot show get no picture.
  async draw() {
    try {
      const bitmap = await createImageBitmap(this.blob);
      const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
      const small = document.createElement("canvas");
      small.width = Math.max(1, Math.round(bitmap.width * scale));
      small.height = Math.max(1, Math.round(bitmap.height * scale));
      small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
      bitmap.close();
      this.thumbnail = small;
    } catch {
      this.element.classList.add("no-preview");
    }
    this.paint(false);
  }

  show(row, threshold) {
    this.row = row;
    this.judge(threshold);
  }

  judge(threshold) {
    if (!this.row) return;
    this.state = judge(this.row, threshold);
    this.element.dataset.state = this.state;
    this.find(".badge-text").textContent = WORDS[this.state];
    const failed = this.state === "failed";
    this.find(".bar").hidden = failed;
    this.find(".number").hidden = failed;
    this.find(".reason").hidden = !failed;
    this.find(".reason").textContent = this.row.reason;
    if (failed) return;
    showBar(this.find(".bar"), this.row.probability, threshold);
    this.find(".number").textContent = writePercent(this.row.probability);
    this.find("canvas").setAttribute("aria-label", `${this.name}: ${WORDS[this.state]}`);
  }

  paint(withHeat) {
    const { thumbnail } = this;
    if (!thumbnail) return;
    const canvas = this.find("canvas");
    canvas.width = thumbnail.width;
    canvas.height = thumbnail.height;
    const context = canvas.getContext("2d");
    const heat = withHeat && this.heat;
    if (heat) context.filter = "grayscale(0.85) brightness(0.8)";
    context.drawImage(thumbnail, 0, 0);
    context.filter = "none";
    if (heat) context.drawImage(this.heat.image, ...placeSquare(this.heat.method, thumbnail.width, thumbnail.height));
    this.element.classList.toggle("heated", Boolean(heat));
    const note = this.find(".heat-note");
    note.textContent = this.heatFailed;
    note.hidden = !(withHeat && this.heatFailed);
  }
}

// Where the model's square lies on a picture of that size: x, y, width and height in the picture's pixels.
function placeSquare(method, width, height) {
  if (method === "squish") return [0, 0, width, height];
  const side = method === "pad" ? Math.max(width, height) : Math.min(width, height);
  return [(width - side) / 2, (height - side) / 2, side, side];
}
