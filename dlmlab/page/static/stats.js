// The statistics of dlmlab/measure/stats.py, for pairs that are chosen on the page. Their tests hold both to the same numbers.

const Z = 1.959963984540054;

/** Tango's interval of the difference of paired proportions: pairs gained and lost, of n. */
function pairedInterval(gained, lost, n) {
  return { low: lowerLimit(gained, lost, n), high: -lowerLimit(lost, gained, n) };
}

function lowerLimit(gained, lost, n) {
  let rejected = -1, kept = (gained - lost) / n;
  if (!tooSmall(rejected, gained, lost, n)) return rejected;
  for (;;) {
    const middle = (rejected + kept) / 2;
    if (!(rejected < middle && middle < kept)) return kept;
    if (tooSmall(middle, gained, lost, n)) rejected = middle;
    else kept = middle;
  }
}

function tooSmall(difference, gained, lost, n) {
  const spread = difference * (1 - difference);
  const linear = (2 * n - gained + lost) * difference - gained - lost;
  const share = (Math.sqrt(Math.max(0, linear ** 2 + 8 * n * lost * spread)) - linear) / (4 * n);
  return gained - lost - n * difference > Z * Math.sqrt(Math.max(0, n * (2 * share + spread)));
}

/** Wilson's interval of a proportion. */
function proportionInterval(right, n) {
  const centre = (right + Z ** 2 / 2) / (n + Z ** 2);
  const half = (Z / (n + Z ** 2)) * Math.sqrt((right * (n - right)) / n + Z ** 2 / 4);
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** McNemar's exact two-sided p value. */
function mcnemarP(gained, lost) {
  const n = gained + lost;
  let term = -n * Math.LN2, tail = 0;
  for (let k = 0; k <= Math.min(gained, lost); k++) {
    tail += Math.exp(term);
    term += Math.log((n - k) / (k + 1));
  }
  return Math.min(1, 2 * tail);
}

/** Which side of the bound an interval is on: above is good. */
function judge(interval, bound) {
  if (interval.low > bound) return "pass";
  return interval.high < bound ? "fail" : "inconclusive";
}

/** The rows that none beats in score at the same cost or less, from the cheapest on. cost: lower is better. */
function paretoFront(rows, cost) {
  const front = [];
  for (const row of [...rows].sort((a, b) => cost(a) - cost(b) || b.score - a.score)) {
    if (!front.length || row.score > front.at(-1).score) front.push(row);
  }
  return front;
}

/** A row's score with its interval; null where it has none. */
function intervalOf(row) {
  if (row.low !== null && row.high !== null) return { low: row.low, high: row.high };
  return row.right !== null && row.n ? proportionInterval(row.right, row.n) : null;
}
