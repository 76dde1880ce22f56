// Numbers as people read them.

export const percent = (share) => {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  // A decimal where it tells something: below ten, and near a hundred that is not one.
  return `${value.toFixed(value < 10 || value >= 99.5 ? 1 : 0).replace(/\.0$/, "")} %`;
};

export const milliseconds = (seconds) => {
  const value = 1000 * seconds;
  return value >= 10_000 ? `${seconds.toFixed(1)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
};

export const decimal = (value) => String(Number(value.toPrecision(3)));

export const exact = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
