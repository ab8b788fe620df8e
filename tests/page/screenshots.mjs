// Takes the pictures of the report page in docs/pictures, of the fixture `small`: `bash tests/page/run screenshots`.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { launch, page } from "./browser.mjs";
import { small } from "./fixture.mjs";

const target = process.argv[2] ?? "docs/pictures";
mkdirSync(target, { recursive: true });
const facts = small();
const file = join(tmpdir(), `report-${process.pid}.html`);
writeFileSync(file, page(facts));

const PICTURES = [
  ["report", { width: 1280, height: 1480 }, "light", 1],
  ["report-dark", { width: 1280, height: 1480 }, "dark", 1],
  ["report-phone", { width: 390, height: 1500 }, "light", 1.5],
];
const browser = await launch();
for (const [name, viewport, colorScheme, deviceScaleFactor] of PICTURES) {
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor, reducedMotion: "reduce" });
  const tab = await context.newPage();
  await tab.clock.setFixedTime(facts.generatedTime);
  await tab.goto(`file://${file}`);
  await tab.screenshot({ path: join(target, `${name}.png`) });
  await context.close();
}
await browser.close();
rmSync(file);
