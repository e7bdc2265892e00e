// Talks to the server: one picture goes out, one result row comes back; a busy server is asked again.

const TRIES = 6;
const TOKEN_KEY = "maskfast-token";

// The server wants a token; the message says what is wrong with the one that was given, if one was.
export class TokenNeeded extends Error {}

export function saveToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

export async function fetchModel() {
  const answer = await ask("/api/model", {});
  return answer.json();
}

// Resolves to a row {image, probability, label, status, reason}; a refusal becomes a failed row.
export async function predict(name, blob, signal) {
  const answer = await post("/api/predict", name, blob, signal);
  const body = await readJson(answer);
  return body.results?.[0] ?? failRow(name, body.error ?? `the server answered ${answer.status}`);
}

// Resolves to {method, image}: the heat map as an HTMLImageElement; rejects with the server's words.
export async function explain(name, blob, signal) {
  const answer = await post("/api/explain", name, blob, signal);
  const body = await readJson(answer);
  if (!answer.ok) throw new Error(body.results?.[0]?.reason || body.error || `the server answered ${answer.status}`);
  const image = new Image();
  image.src = `data:image/png;base64,${body.heat_map}`;
  await image.decode();
  return { method: body.method, image };
}

export function failRow(name, reason) {
  return { image: name, probability: null, label: "", status: "failed", reason };
}

async function post(path, name, blob, signal) {
  const headers = { "Content-Type": blob.type.startsWith("image/") ? blob.type : "application/octet-stream" };
  const url = `${path}?name=${encodeURIComponent(name)}`;
  for (let attempt = 1; ; attempt += 1) {
    const answer = await ask(url, { method: "POST", headers, body: blob, signal });
    if ((answer.status !== 503 && answer.status !== 429) || attempt === TRIES) return answer;
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000 * (0.5 + Math.random())));
  }
}

async function ask(url, options) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  const needed = new TokenNeeded(token ? "Wrong token." : "");
  if (token && /[^ -~]/.test(token)) throw needed; // no header can carry it, and no server has such a token
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(url, { ...options, headers });
  if (answer.status === 401) throw needed;
  return answer;
}

async function readJson(answer) {
  try {
    return await answer.json();
  } catch {
    return {};
  }
}
