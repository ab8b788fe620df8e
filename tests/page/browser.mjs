// Fills the template of the report page, and starts Chromium. The environment has PAGE_CHROMIUM (the program) and PAGE_MODULES (the folder
// with node_modules); `run` sets both.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = join(dirname(fileURLToPath(import.meta.url)), "../../src/plugin/report");
export const require = createRequire(join(process.env.PAGE_MODULES, "package.json"));
const { chromium } = require("playwright-core");

// Replaces the tokens as the program does: the facts last, and none of them in text that was inserted.
export const page = (facts) => {
  const part = (name) => readFileSync(join(folder, name), "utf8");
  const replace = (text, token, by) => {
    const pieces = text.split(token);
    if (pieces.length !== 2) throw new Error(`the template has ${pieces.length - 1} times ${token}`);
    return pieces.join(by);
  };
  const data = facts === null ? "null" : JSON.stringify(facts).replaceAll("<", "\\u003c");
  const template = replace(part("page.html"), "/*PAGE_CSS*/", part("page.css"));
  return replace(replace(template, "/*PAGE_JS*/", part("page.js")), "/*REPORT_DATA*/null", data);
};

export const launch = () => chromium.launch({
  executablePath: process.env.PAGE_CHROMIUM,
  args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ...(process.getuid() === 0 ? ["--no-sandbox"] : [])],
});
