// The page: pictures come by drop, paste, choice or camera, are scored a few at a time and stay as cards.

import { explain, failRow, fetchModel, predict, saveToken, TokenNeeded } from "./api.js";
import { Camera } from "./camera.js";
import { Card, judge, showBar, writePercent } from "./card.js";
import { saveText, writeCsv } from "./table.js";

const AT_ONCE = 4;
const MOST = 1000;
const find = (id) => document.getElementById(id);

const cards = [];
const queue = [];
let working = 0;
let heating = false;
let locked = false; // the server asks for its token: pictures wait until it took one
let model = null;
let chosen = null; // the threshold that the user chose
let filter = "all";

const threshold = () => chosen ?? model?.threshold ?? 0.5;

// ---- scoring -------------------------------------------------------------------------------------------------------

function addFiles(files) {
  const room = MOST - cards.length;
  if (files.length > room) notify(`Only ${MOST} pictures fit here; ${files.length - Math.max(0, room)} were left out.`);
  for (const file of [...files].slice(0, Math.max(0, room))) addPicture(file.name || "pasted.png", file);
}

function addPicture(name, blob) {
  const card = new Card(name, blob, { onRemove: removeCard });
  cards.push(card);
  find("grid").append(card.element);
  queue.push(card);
  showBench();
  work();
}

function work() {
  while (!locked && working < AT_ONCE && queue.length) {
    working += 1;
    score(queue.shift()).finally(() => {
      working -= 1;
      work();
    });
  }
}

async function score(card) {
  if (card.abort.signal.aborted) return;
  try {
    const drawn = card.draw();
    const row = tooLarge(card.blob) ?? (await predict(card.name, card.blob, card.abort.signal));
    await drawn;
    card.show({ ...row, image: card.name }, threshold());
  } catch (error) {
    failCard(card, error);
  }
  showBench();
  heatNext();
}

function tooLarge(blob) {
  if (!model || blob.size <= model.max_body) return null;
  return failRow(blob.name, `larger than ${Math.floor(model.max_body / 1048576)} MiB`);
}

function failCard(card, error) {
  if (error.name === "AbortError") return;
  if (error instanceof TokenNeeded) {
    queue.unshift(card);
    askToken(error);
    return;
  }
  card.show(failRow(card.name, "the server cannot be reached"), threshold());
}

function removeCard(card) {
  const place = cards.indexOf(card);
  card.abort.abort();
  cards.splice(place, 1);
  card.element.remove();
  showBench();
  const next = cards[Math.min(place, cards.length - 1)];
  (next ? next.find(".remove") : find("choose")).focus();
}

// ---- the heat map --------------------------------------------------------------------------------------------------

// One map at a time: each takes the server as long as dozens of pictures.
async function heatNext() {
  const card = cards.find((each) => each.row?.status === "ok" && each.thumbnail && !each.heat && !each.heatFailed);
  if (heating || locked || !card || !find("heat").checked) return;
  heating = true;
  card.element.classList.add("heating");
  try {
    card.heat = await explain(card.name, card.blob, card.abort.signal);
  } catch (error) {
    if (error instanceof TokenNeeded) askToken(error);
    else card.heatFailed = `no heat map: ${error.message}`;
  }
  card.element.classList.remove("heating");
  card.paint(find("heat").checked);
  heating = false;
  heatNext();
}

function showHeat() {
  for (const card of cards) {
    card.heatFailed = "";
    card.paint(find("heat").checked);
  }
  heatNext();
}

// ---- the bench above the results -----------------------------------------------------------------------------------

function showBench() {
  find("bench").hidden = find("skip").hidden = cards.length === 0;
  document.body.classList.toggle("has-results", cards.length > 0);
  const counts = { mask: 0, no_mask: 0, failed: 0, waiting: 0 };
  for (const card of cards) {
    counts[card.state] += 1;
    card.element.hidden = filter !== "all" && card.state !== filter;
  }
  for (const button of document.querySelectorAll("[data-filter]")) {
    const count = button.dataset.filter === "all" ? cards.length : counts[button.dataset.filter];
    button.dataset.count = count;
  }
  find("summary").textContent = summarise(counts);
}

function summarise({ mask, no_mask: without, failed, waiting }) {
  const parts = [`${mask} with a mask`, `${without} without`];
  if (failed) parts.push(`${failed} failed`);
  if (waiting) parts.push(`${waiting} being scored`);
  return parts.join(", ");
}

function moveThreshold() {
  chosen = Number(find("threshold").value);
  showThreshold();
}

function showThreshold() {
  const short = threshold().toFixed(2);
  const words = Number(short) === threshold() ? short : String(Number(threshold().toPrecision(4)));
  find("threshold-value").textContent = words;
  find("threshold").setAttribute("aria-valuetext", words);
  for (const card of cards) card.judge(threshold());
  showBench();
}

function chooseFilter(button) {
  filter = button.dataset.filter;
  for (const each of document.querySelectorAll("[data-filter]")) each.setAttribute("aria-pressed", String(each === button));
  showBench();
}

function download() {
  const rows = cards.filter((card) => card.row).map((card) => {
    const label = judge(card.row, threshold());
    return { ...card.row, label: label === "failed" ? "" : label };
  });
  saveText(writeCsv(rows), "predictions.csv");
}

function clearAll() {
  queue.length = 0;
  for (const card of cards.splice(0)) {
    card.abort.abort();
    card.element.remove();
  }
  showBench();
  find("choose").focus();
}

// ---- the camera ----------------------------------------------------------------------------------------------------

const camera = new Camera(find("video"), { onRow: showCameraRow, onError: stopCameraWith });
let stills = 0;

async function openCamera() {
  find("camera").hidden = false;
  find("open-camera").setAttribute("aria-expanded", "true");
  try {
    if (await camera.start()) find("snap").focus();
  } catch (error) {
    stopCameraWith(error);
  }
}

function closeCamera() {
  camera.stop();
  find("camera").hidden = true;
  find("open-camera").setAttribute("aria-expanded", "false");
  find("open-camera").focus();
}

function stopCameraWith(error) {
  closeCamera();
  if (error instanceof TokenNeeded) askToken(error);
  else notify(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : `No camera: ${error.message}`);
}

function showCameraRow(row) {
  const label = judge(row, threshold());
  const words = { mask: "Mask", no_mask: "No mask", failed: row.reason };
  const verdict = find("camera-verdict");
  verdict.dataset.label = label;
  verdict.textContent = label === "failed" ? words.failed : `${words[label]} ${writePercent(row.probability)}`;
  if (label !== "failed") showBar(find("camera-bar"), row.probability, threshold());
}

async function snap() {
  stills += 1;
  addPicture(`camera-${stills}.jpg`, await camera.still());
}

// ---- words to the user ---------------------------------------------------------------------------------------------

function notify(words) {
  find("notice").textContent = words;
  find("notice").hidden = false;
}

function askToken(error) {
  find("token-form").hidden = false;
  find("token-wrong").textContent = error.message;
  find("token-wrong").hidden = !error.message;
  if (!locked) find("token").focus();
  locked = true;
}

function unlock() {
  find("token-form").hidden = true;
  if (locked) find("notice").hidden = true;
  locked = false;
  work();
  heatNext();
}

async function greet() {
  try {
    model = await fetchModel();
  } catch (error) {
    if (error instanceof TokenNeeded) askToken(error);
    else notify("The server cannot be reached.");
    return;
  }
  unlock();
  find("threshold").value = threshold();
  find("model").textContent = `${model.arch} · ${model.size} px`;
  find("model").hidden = false;
  const accuracy = model.metrics.accuracy ? ` Accuracy on its held-out pictures: ${(model.metrics.accuracy * 100).toFixed(1)} %.` : "";
  find("model-words").textContent = `Answers come from ${model.arch} at ${model.size} pixels.${accuracy}`;
  showThreshold();
}

// ---- what people do ------------------------------------------------------------------------------------------------

function listen() {
  find("choose").addEventListener("click", () => find("files").click());
  find("files").addEventListener("change", (event) => {
    addFiles(event.target.files);
    event.target.value = "";
  });
  find("threshold").addEventListener("input", moveThreshold);
  find("heat").addEventListener("change", showHeat);
  find("download").addEventListener("click", download);
  find("clear").addEventListener("click", clearAll);
  find("open-camera").addEventListener("click", () => (camera.stream ? closeCamera() : openCamera()));
  find("close-camera").addEventListener("click", closeCamera);
  find("snap").addEventListener("click", snap);
  find("token-form").addEventListener("submit", useToken);
  for (const button of document.querySelectorAll("[data-filter]")) button.addEventListener("click", () => chooseFilter(button));
  document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));
  listenToDrops();
}

function listenToDrops() {
  const over = (inside) => find("drop").classList.toggle("over", inside);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    addFiles(event.dataTransfer.files);
  });
}

async function useToken(event) {
  event.preventDefault();
  saveToken(find("token").value.trim());
  await greet();
  if (locked) find("token").select();
}

listen();
greet();
