// The results as the CSV that `maskfast predict` writes: image,probability,label,status,reason.

const COLUMNS = ["image", "probability", "label", "status", "reason"];

export function writeCsv(rows) {
  const named = rows.map((row) => ({ ...row, image: disarm(row.image) }));
  const lines = [COLUMNS, ...named.map((row) => COLUMNS.map((column) => row[column] ?? ""))];
  return `${lines.map((line) => line.map(quote).join(",")).join("\n")}\n`;
}

export function saveText(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// No spreadsheet takes a name with ./ in front for a formula, and it still names the same file.
function disarm(name) {
  return /^[=+@\t\r-]/.test(name) ? `./${name}` : name;
}

function quote(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
