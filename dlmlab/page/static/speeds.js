// Which measured rates can be compared over time, and where one fell.

const FELL = 0.9;
const BEFORE = 5;

/** Rates by what they share: hardware, settings, decoder and batch. `fell` is the share of the median before it. */
function speedLines(speeds) {
  const lines = new Map();
  for (const each of speeds) {
    const key = [each.hardware, each.setting, each.decoder, each.batch].join("\n");
    if (!lines.has(key)) lines.set(key, { name: `${each.decoder}, batch ${each.batch}`, hardware: each.hardware, setting: each.setting, speeds: [] });
    const { speeds: before } = lines.get(key);
    const usual = middle(before.slice(-BEFORE).map((other) => other.rate));
    before.push({ ...each, usual, fell: usual !== null && each.rate < FELL * usual });
  }
  return [...lines.values()];
}

function middle(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b), half = sorted.length >> 1;
  if (!sorted.length) return null;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The rates that fell, in words. */
function regressions(lines) {
  return lines.flatMap((line) => line.speeds.filter((each) => each.fell).map((each) =>
    `${each.date.slice(0, 10)}: ${line.name} fell by ${Math.round(100 * (1 - each.rate / each.usual))} %, from ${each.usual.toFixed(1)} to ${each.rate.toFixed(1)} tokens/s`));
}
