// SPDX-License-Identifier: Apache-2.0
/** What the demo tells: lines for people, in colour on a terminal, or with `--json` one object of facts at the end. */
const MIB = 2 ** 20;
/** Begin and end of a style on a terminal. */
const STYLES = { bold: ["\u001B[1m", "\u001B[22m"], green: ["\u001B[32m", "\u001B[39m"] };

/** A number of bytes in MiB. */
export const mib = (bytes) => `${(bytes / MIB).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;

/** Where the parts of the demo say what they do. */
export const createReport = ({ isJson, stream }) => {
  const isColoured = !isJson && stream.isTTY === true && process.env.NO_COLOR === undefined;
  const paint = (style, text) => (isColoured ? STYLES[style].join(text) : text);
  const line = (text) => void (isJson || stream.write(`${text}\n`));
  const facts = {};
  return {
    facts,
    /** A part of the demo begins. */
    title: (text) => line(`\n${paint("bold", text)}`),
    say: (text) => line(`  ${text}`),
    /** Something held that this demo is about. */
    good: (text) => line(`  ${paint("green", text)}`),
    end: () => void (isJson && stream.write(`${JSON.stringify(facts, undefined, 2)}\n`)),
  };
};
