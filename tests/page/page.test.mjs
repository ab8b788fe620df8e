// Tests of the report page in Chromium: `bash tests/page/run` starts them.
//
// With PAGE_FILE and PAGE_FACTS, the tests of the contents read this page, which the program wrote for these facts. The other tests, and
// without PAGE_FILE all of them, fill the template with the fixture.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { launch, page, require } from "./browser.mjs";
import { HOSTILE, fleet, small } from "./fixture.mjs";

// A page with all rows of 10,000 streams would take many seconds to render and to scroll. How long this one takes is only printed: it
// depends on the machine.
const ROWS_IN_SIGHT = 100;
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

const folder = mkdtempSync(join(tmpdir(), "report-page-"));
let files = 0;
const written = (facts) => {
  const file = join(folder, `${++files}.html`);
  writeFileSync(file, page(facts));
  return file;
};
const main = process.env.PAGE_FILE
  ? { file: process.env.PAGE_FILE, facts: JSON.parse(readFileSync(process.env.PAGE_FACTS, "utf8")) }
  : (() => { const facts = fleet(10_000); return { file: written(facts), facts }; })();

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); rmSync(folder, { recursive: true, force: true }); });

// Opens a page, and fails the test at its end if the page made a request, printed an error, ran a hostile string or scrolls sideways.
const open = async (file, use, options = {}) => {
  const context = await browser.newContext({ viewport: DESKTOP, reducedMotion: "reduce", ...options });
  const tab = await context.newPage();
  const requests = [];
  const problems = [];
  tab.on("request", (request) => requests.push(request.url()));
  tab.on("pageerror", (error) => problems.push(String(error)));
  tab.on("console", (message) => { if (["error", "warning"].includes(message.type())) problems.push(message.text()); });
  tab.on("dialog", (dialog) => { problems.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  const address = pathToFileURL(file).href;
  await tab.goto(address);
  try {
    await use(tab);
    assert.deepEqual(requests.map((url) => url.split("#")[0]), [address], "requests of the page");
    assert.deepEqual(problems, [], "errors of the page");
    if (options.javaScriptEnabled !== false) {
      assert.equal(await tab.evaluate(() => window.hacked), undefined, "a hostile string ran");
      assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls sideways");
    }
  } finally {
    await context.close();
  }
};

const int = (text) => Number(text.replaceAll(",", ""));
const inState = (facts, state) => facts.streams.filter((stream) => stream.state === state).length;
// The reasons that resolve by themselves. Each other one of a resource that is not ready needs a person.
const RESOLVING = ["Encrypted", "EncryptionDisabled", "KeyEnabled", "Settling", "Verifying", "Enabling", "Disabling", "StreamUpdating", "StreamInUse",
  "OutcomeUnknown", "StreamCreating", "AwsThrottled", "AwsUnreachable"];
const needsPerson = (stream) => Boolean(stream.activeKeyUnusableSinceTime || stream.stalled || stream.suspended
  || (stream.reason && ["False", "Unknown"].includes(stream.ready) && !RESOLVING.includes(stream.reason)));
const shownCount = async (tab) => int((await tab.locator("#shown").textContent()).split(/ |\./)[0].replace("No", "0"));
// The texts of a list: one array of cells per row.
const cells = (tab, list) => tab.locator(`${list} tbody tr`).evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent.trim())));
const showAll = async (tab, list) => { for (const more = tab.locator(`${list} .more`); await more.isVisible();) await more.click(); };
const focused = (tab, property) => tab.evaluate((name) => (name === "text" ? document.activeElement.textContent : document.activeElement.getAttribute(name)), property);
const focusedRow = (tab) => tab.evaluate(() => Number(document.activeElement.closest("tr")?.getAttribute("aria-rowindex")));
// Presses Tab until the focus is on an element that matches.
const tabTo = async (tab, selector) => {
  for (let presses = 0; presses < 400; presses++) {
    if (await tab.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return;
    await tab.keyboard.press("Tab");
  }
  assert.fail(`Tab does not reach ${selector}`);
};

describe("contents", () => {
  test("the page has the facts, a policy and no address of another host", () => {
    const text = readFileSync(main.file, "utf8");
    const [, json] = /<script id="data" type="application\/json">([^<]*)<\/script>/.exec(text);
    assert.ok(isDeepStrictEqual(JSON.parse(json), main.facts), "the page has other facts");
    assert.match(text, /http-equiv="Content-Security-Policy" content="default-src 'none';/);
    const own = text.replace(json, "");
    assert.doesNotMatch(own, /\/\*(PAGE_CSS|PAGE_JS|REPORT_DATA)\*\//);
    assert.deepEqual([...own.matchAll(/\b(?:https?:)?\/\/[\w-]+\.[\w.-]+[^"'\s]*/g)].map(([address]) => address), ["http://www.w3.org/2000/svg"]);
  });

  test("of 10,000 streams, only the rows in sight are rendered", { skip: main.facts.streams.length < 10_000 }, async (context) => {
    await open(main.file, async (tab) => {
      await tab.locator("tr.stream").first().waitFor();
      assert.ok(await tab.locator("tr.stream").count() < ROWS_IN_SIGHT);
      const time = await tab.evaluate(() => performance.getEntriesByName("report-rendered")[0].startTime);
      context.diagnostic(`rendered ${Math.round(time)} ms after the start of the navigation`);
    });
  });

  test("figures equal the facts", async () => {
    const { facts } = main;
    await open(main.file, async (tab) => {
      const figure = (name) => tab.locator(`[data-figure="${name}"] .value`).textContent();
      const total = facts.streams.length;
      const encrypted = inState(facts, "Encrypted");
      assert.equal(int(await figure("Streams")), total);
      for (const state of ["Plaintext", "Changing", "NotEncryptable", "Unknown"]) assert.equal(int(await figure(state)), inState(facts, state), state);
      assert.ok(Math.abs(parseFloat(await figure("Encrypted")) - (encrypted / total) * 100) <= 0.1);
      assert.deepEqual(await tab.locator('[data-figure="Encrypted"] .sub').allTextContents(), [
        `${encrypted.toLocaleString("en")} of ${total.toLocaleString("en")}`,
        `${encrypted.toLocaleString("en")} of ${(total - inState(facts, "NotEncryptable")).toLocaleString("en")} that can be encrypted`,
      ]);
      assert.equal(await figure("Unmanaged"), facts.aws ? facts.streams.filter((stream) => stream.managed === false).length.toLocaleString("en") : "–");
      const label = await tab.locator("#overview").getAttribute("aria-label");
      assert.equal(label, `${total.toLocaleString("en")} streams: ${encrypted.toLocaleString("en")} encrypted, ${inState(facts, "Plaintext").toLocaleString("en")} in plaintext, `
        + `${inState(facts, "Changing").toLocaleString("en")} changing, ${inState(facts, "NotEncryptable").toLocaleString("en")} not encryptable, ${inState(facts, "Unknown").toLocaleString("en")} unknown.`);
    });
  });

  test("accounts, keys and controls add up to the facts", async () => {
    const { facts } = main;
    await open(main.file, async (tab) => {
      for (const list of ["#by-account", "#by-key", "#controls-list"]) await showAll(tab, list);
      const accounts = new Map();
      for (const stream of facts.streams) {
        const name = `${stream.account} in ${stream.region}`;
        const [plaintext, total] = accounts.get(name) ?? [0, 0];
        accounts.set(name, [plaintext + (stream.state === "Plaintext"), total + 1]);
      }
      assert.deepEqual(new Map((await cells(tab, "#by-account")).map((row) => [row[0], [int(row[4]), int(row[8])]])), accounts);
      const keyed = facts.streams.filter((stream) => stream.activeKey);
      const keys = await cells(tab, "#by-key");
      assert.equal(keys.length, new Set(keyed.map((stream) => (stream.activeKey === "AWS_OWNED_CMK" ? stream.service : stream.activeKey))).size);
      assert.equal(keys.reduce((sum, row) => sum + int(row[2]), 0), keyed.length);
      const controls = {};
      for (const stream of facts.streams) for (const control of stream.controls ?? []) {
        controls[control.id + control.framework] ??= { Passed: 0, Failed: 0, NotApplicable: 0, Unknown: 0 };
        controls[control.id + control.framework][control.result] += 1;
      }
      assert.deepEqual(Object.fromEntries((await cells(tab, "#controls-list")).map(([name, , ...counts]) => [name, counts.map(int)])),
        Object.fromEntries(Object.entries(controls).map(([name, results]) => [name, Object.values(results)])));
    });
  });

  test("lists are complete and in order", async () => {
    const { facts } = main;
    await open(main.file, async (tab) => {
      for (const list of ["#plaintext-list", "#attention-list", "#calls-list"]) await showAll(tab, list);
      const plaintext = (await cells(tab, "#plaintext-list")).map((row) => row[1].slice(0, 16));
      const since = facts.streams.filter((stream) => stream.state === "Plaintext").map((stream) => stream.plaintextSinceTime?.slice(0, 16).replace("T", " ") ?? "~");
      assert.deepEqual(plaintext, since.sort().map((time) => (time === "~" ? "not recorded" : time)));
      const left = (await cells(tab, "#calls-list")).map((row) => parseInt(row[2], 10));
      assert.deepEqual(left, facts.streams.filter((stream) => stream.callsUsed > 0).map((stream) => Math.max(0, stream.callsLimit - stream.callsUsed)).sort((a, b) => a - b));
      const attention = (await cells(tab, "#attention-list")).map((row) => row[1]);
      const wanted = facts.streams.filter(needsPerson);
      assert.equal(attention.length, wanted.length);
      for (const [word, key] of [["Stalled", "stalled"], ["Suspended", "suspended"], ["Active key unusable", "activeKeyUnusableSinceTime"]]) {
        assert.equal(attention.filter((text) => text.includes(word)).length, wanted.filter((stream) => stream[key]).length, word);
      }
    });
  });
});

// A fleet of resources that differ from one that is encrypted by the given values.
const fleetOf = (differences) => {
  const facts = small();
  const stream = facts.streams.find(({ name }) => name === "orders");
  return { ...facts, streams: Object.entries(differences).map(([name, values]) => ({ ...stream, name, resource: name, ...values })) };
};
const since = (hours) => new Date(Date.parse(small().generatedTime) - hours * 3600e3).toISOString().replace(".000Z", "Z");
const UNMANAGED = { namespace: "", resource: "", managed: false, ready: "Unknown", reason: undefined, stalled: false, suspended: false };

describe("needs attention", () => {
  const listed = async (differences) => {
    let names;
    await open(written(fleetOf(differences)), async (tab) => {
      await showAll(tab, "#attention-list");
      names = await tab.locator("#attention-list .link").allTextContents();
      assert.equal((await tab.locator("#sections").textContent()).includes(`Needs attention ${names.length}`), true);
    });
    return names;
  };

  test("lists every resource that somebody must help, the worst first", async () => {
    const plaintext = (reason, hours) => ({ state: "Plaintext", ready: "False", reason, activeKey: undefined, encryptedSinceTime: undefined, plaintextSinceTime: since(hours) });
    assert.deepEqual(await listed({
      well: {},
      suspended: { suspended: true },
      "failed-change": { ready: "False", reason: "EnablingFailed" },
      replica: { state: "NotEncryptable", ready: "False", stalled: true, reason: "SourceNotDirectPut", activeKey: undefined },
      observed: plaintext("Drifted", 1),
      "given-up": plaintext("DriftCorrectionLimitReached", 3),
      "new-key-unusable": { activeKeyUnusableSinceTime: since(1), ready: "False", reason: "Enabling" },
      "old-key-unusable": { activeKeyUnusableSinceTime: since(5), ready: "False", reason: "KeyDisabled" },
      "on-its-way": plaintext("Enabling", 2),
    }), ["old-key-unusable", "new-key-unusable", "given-up", "observed", "failed-change", "replica", "suspended"]);
  });

  test("lists each reason that needs somebody, and none that resolves by itself", async () => {
    const person = ["EnablingFailed", "DisablingFailed", "NotApplied", "CallLimitReached", "CallRefused", "KeyNotFound", "KeyDisabled", "KeyDescribeDenied", "KeyReferenceNotReady",
      "StreamNotFound", "AccessDenied", "NoCredentials", "LedgerInvalid", "NotPermitted", "DriftCorrectionLimitReached", "Drifted", "SpecInvalid", "ReasonOfANewerOperator"];
    const differences = Object.fromEntries([...person, ...RESOLVING].map((reason, index) => [reason, { reason, ready: index % 2 === 0 ? "False" : "Unknown" }]));
    assert.deepEqual(await listed({ ...differences, ready: {}, unmanaged: UNMANAGED, unseen: { ready: "Unknown", reason: undefined } }), [...person].sort());
  });

  test("a resource without a stream has a name", async () => {
    assert.deepEqual(await listed({ broken: { name: "", stream: undefined, service: undefined, state: "Unknown", ready: "False", stalled: true, reason: "SpecInvalid" } }), ["broken"]);
  });
});

describe("calls", () => {
  test("the limit and the next attempt are not mixed up", async () => {
    const used = (callsUsed, hours) => ({ callsUsed, callsLimit: 20, callsNextAvailableTime: hours === undefined ? undefined : since(-hours) });
    await open(written(fleetOf({ some: used(3, 24), none: used(20, 2), over: used(22, 3), passed: used(20, -1), old: used(1, -1), unsaid: used(20),
      planned: { ...used(3, 24), nextAttemptTime: since(-5) }, missed: { ...used(3, 24), nextAttemptTime: since(1) } })), async (tab) => {
      const rows = Object.fromEntries(await tab.locator("#calls-list tbody tr").evaluateAll((all) => all.map((row) => [row.querySelector("button").textContent, row.children[3].innerText.replace(/\s+/g, " ").trim()])));
      assert.deepEqual(rows, {
        some: "now one more from 2026-03-03 09:00 in 24 hours", none: "2026-03-02 11:00 in 2 hours", over: "2026-03-02 12:00 in 3 hours",
        passed: "now", old: "now", unsaid: "not recorded", missed: "now one more from 2026-03-03 09:00 in 24 hours",
        planned: "now one more from 2026-03-03 09:00 in 24 hours next attempt at 2026-03-02 14:00 in 5 hours",
      });
      assert.equal(await tab.locator("#calls-list th.next").textContent(), "Allowed from (UTC)");
      await tab.locator("#calls-list .link", { hasText: "some" }).click();
      assert.match(await tab.locator("#detail").innerText(), /Call allowed from\s+now\s+one more from 2026-03-03 09:00/);
    });
  });

  test("calls seconds apart have a mark each, on an axis of the last hour", async () => {
    const calls = [130, 128, 126, 30].map((seconds) => ({ time: since(seconds / 3600), action: "Start", outcome: "Accepted" }));
    const facts = fleetOf({ young: { callsUsed: 4, callsLimit: 20, calls, encryptedSinceTime: since(20 / 3600), plaintextPeriods: [{ fromTime: since(130 / 3600), toTime: since(20 / 3600) }] } });
    for (const viewport of [DESKTOP, PHONE]) {
      await open(written(facts), async (tab) => {
        assert.equal(await tab.locator("#windows label:has(:checked)").textContent(), "1 hour");
        assert.equal(await tab.locator(".tick.now").textContent(), "now");
        const lefts = await tab.locator(".call").evaluateAll((marks) => marks.map((mark) => mark.getBoundingClientRect().left));
        assert.equal(lefts.length, 4);
        for (let i = 1; i < lefts.length; i++) assert.ok(lefts[i] - lefts[i - 1] >= 12, `${lefts}`);
        assert.match(await tab.locator(".lane").textContent(), /in plaintext from 2026-03-02 08:57:50 to 2026-03-02 08:59:40; .*Start accepted at 2026-03-02 08:57:52/);
      }, { viewport });
    }
    calls[0].time = since(20);
    await open(written(facts), async (tab) => assert.equal(await tab.locator("#windows label:has(:checked)").textContent(), "25 hours"));
  });
});

describe("words", () => {
  test("percentages are rounded, and are 100 % only for all", async () => {
    const shares = (encrypted, total) => fleetOf(Object.fromEntries(Array.from({ length: total }, (_, index) => [`s${index}`, index < encrypted ? {} : { state: "Plaintext", plaintextSinceTime: since(0.1) }])));
    for (const [encrypted, total, wanted] of [[6, 9, "66.7 %"], [2999, 3000, "> 99.9 %"], [1, 3000, "< 0.1 %"], [3, 3, "100 %"], [0, 3, "0 %"]]) {
      await open(written(shares(encrypted, total)), async (tab) => {
        assert.equal(await tab.locator('[data-figure="Encrypted"] .value').textContent(), wanted);
        if (encrypted < total) assert.match(await tab.locator("#verdict").textContent(), /since 2026-03-02 08:54 UTC \(6 minutes ago\)/);
      });
    }
  });
});

describe("table of all streams", () => {
  test("nothing of the key, the reason, the owner and the state is cut at 1280 px", async () => {
    const facts = fleetOf({
      long: { reason: "DriftCorrectionLimitReached", ready: "False", namespace: "data", resource: "firehose-orders-eu-b6ce662b", activeKey: `arn:aws:kms:eu-west-1:111122223333:key/${"mrk-"}${"5".repeat(32)}` },
      other: { state: "NotEncryptable", reason: "SourceNotDirectPut" }, denied: { managed: null, reason: "NotPermitted", namespace: "payments", resource: "orders-eu" }, kinesis: { service: "Kinesis", activeKey: "AWS_OWNED_CMK" },
    });
    await open(written(facts), async (tab) => {
      const cut = await tab.locator("tr.stream td, tr.stream td > div").evaluateAll((all) => all.filter((one) => one.scrollHeight > one.clientHeight + 1 || one.scrollWidth > one.clientWidth).map((one) => one.textContent));
      assert.deepEqual(cut, []);
      assert.deepEqual(await tab.locator("tr.stream").evaluateAll((rows) => [...new Set(rows.map((row) => row.getBoundingClientRect().height))]), [56]);
    });
  });

  test("details open without a scrollbar of their own, and ARNs break at : and / only", async () => {
    await open(written(fleetOf({ one: {}, two: {} })), async (tab) => {
      await tab.locator("tr.stream .expand").first().click();
      assert.ok(await tab.locator("#rows").evaluate((rows) => rows.scrollHeight <= rows.clientHeight), "a scrollbar");
      const pieces = await tab.locator("#detail .piece").evaluateAll((all) => all.map((piece) => piece.getClientRects().length && piece.getBoundingClientRect().height < 30));
      assert.ok(pieces.length > 10 && pieces.every(Boolean), `${pieces}`);
    });
  });

  const facts = fleet(10_000);
  const file = written(facts);

  test("search, filter, sort and details work with the keyboard only", async () => {
    await open(file, async (tab) => {
      await tab.keyboard.press("Tab");
      assert.equal(await focused(tab, "class"), "skip");
      await tabTo(tab, "#filter-text");
      await tab.keyboard.type("ORDERS-clicks");
      const found = facts.streams.filter((stream) => JSON.stringify([stream.stream, stream.message, stream.resource]).includes("orders-clicks"));
      assert.ok(found.length > 10);
      assert.equal(await shownCount(tab), found.length);
      await tabTo(tab, "#filter-state");
      await tab.keyboard.press("ArrowDown");
      assert.equal(await shownCount(tab), found.filter((stream) => stream.state === "Encrypted").length);
      await tabTo(tab, "#filter-service");
      await tab.keyboard.type("Kin");
      const wanted = found.filter((stream) => stream.state === "Encrypted" && stream.service === "Kinesis");
      assert.equal(await shownCount(tab), wanted.length);
      await tabTo(tab, "[data-column=since] button");
      await tab.keyboard.press("Enter");
      assert.equal(await tab.locator("[data-column=since]").getAttribute("aria-sort"), "ascending");
      await tab.keyboard.press("Enter");
      assert.equal(await tab.locator("[aria-sort]").count(), 1);
      assert.equal(await tab.locator("[data-column=since]").getAttribute("aria-sort"), "descending");
      const youngest = wanted.sort((a, b) => (a.encryptedSinceTime < b.encryptedSinceTime ? 1 : -1))[0];
      assert.equal(await tab.locator("tr.stream bdi").first().textContent(), youngest.name);
      await tabTo(tab, ".expand");
      await tab.keyboard.press("Home");
      await tab.keyboard.press("Enter");
      assert.equal(await focused(tab, "aria-expanded"), "true");
      assert.ok((await tab.locator("#detail").textContent()).includes(youngest.stream));
      assert.equal(await tab.locator("#detail").getAttribute("aria-rowindex"), "3");
      await tab.keyboard.press("Escape");
      assert.equal(await tab.locator("#detail").count(), 0);
      assert.equal(await focused(tab, "text"), youngest.name);
      await tab.keyboard.press("Shift+Tab");
      while (!(await tab.evaluate(() => document.activeElement.id === "clear"))) await tab.keyboard.press("Shift+Tab");
      await tab.keyboard.press("Enter");
      assert.equal(await shownCount(tab), facts.streams.length);
    });
  });

  test("keys move through all rows, and the focus stays when its row scrolls away", async () => {
    await open(file, async (tab) => {
      const table = tab.locator("#table");
      assert.equal(await table.getAttribute("aria-rowcount"), "10001");
      await tabTo(tab, ".expand");
      assert.equal(await focusedRow(tab), 2);
      await tab.keyboard.press("ArrowDown");
      assert.equal(await focusedRow(tab), 3);
      await tab.keyboard.press("PageDown");
      const page = await focusedRow(tab) - 3;
      assert.ok(page >= 5 && page <= 30, `a page has ${page} rows`);
      await tab.keyboard.press("PageUp");
      assert.equal(await focusedRow(tab), 3);
      await tab.keyboard.press("End");
      assert.equal(await focusedRow(tab), 10_001);
      assert.deepEqual(await tab.evaluate(() => {
        const [row, view] = [document.activeElement.getBoundingClientRect(), document.getElementById("rows").getBoundingClientRect()];
        return [row.top >= view.top, row.bottom <= view.bottom, row.top >= 0, row.bottom <= innerHeight];
      }), [true, true, true, true], "the focus is in sight");
      await tab.locator("#rows").evaluate((rows) => { rows.scrollTop = 200_000; });
      await tab.waitForTimeout(100);
      assert.equal(await focusedRow(tab), 10_001);
      await tab.keyboard.press("ArrowUp");
      assert.equal(await focusedRow(tab), 10_000);
      // With details open, the rows below have the next index.
      await tab.keyboard.press("Home");
      await tab.keyboard.press("Enter");
      assert.equal(await table.getAttribute("aria-rowcount"), "10002");
      await tab.keyboard.press("ArrowDown");
      assert.equal(await focusedRow(tab), 4);
      await tab.keyboard.press("End");
      assert.equal(await focusedRow(tab), 10_002);
      await tab.keyboard.press("Escape");
      assert.equal(await focusedRow(tab), 10_001);
    });
  });

  test("each row is at the place that its index gives, with and without details", async () => {
    await open(file, async (tab) => {
      const misplaced = () => tab.evaluate(async () => {
        const rows = document.getElementById("rows");
        const wrong = [];
        const detail = document.getElementById("detail");
        for (let top = 0; top < rows.scrollHeight; top += rows.scrollHeight / 23) {
          rows.scrollTop = top;
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          const view = rows.getBoundingClientRect();
          const body = document.getElementById("body").getBoundingClientRect();
          let covered = 0;
          for (const row of document.querySelectorAll("tr.stream")) {
            const box = row.getBoundingClientRect();
            const index = Number(row.getAttribute("aria-rowindex")) - 2;
            const after = detail && index > Number(detail.getAttribute("aria-rowindex")) - 2;
            const place = (index - (after ? 1 : 0)) * box.height + (after ? detail.getBoundingClientRect().height : 0);
            if (Math.abs(box.top - body.top - place) > 1) wrong.push([top, index, box.top - body.top, place]);
            covered += Math.max(0, Math.min(box.bottom, view.bottom) - Math.max(box.top, view.top));
          }
          if (!detail && covered < view.height - document.getElementById("columns").getBoundingClientRect().height - 10) wrong.push([top, "rows cover", covered]);
        }
        return wrong.slice(0, 5);
      });
      assert.deepEqual(await misplaced(), []);
      await tab.locator("#rows").evaluate((rows) => { rows.scrollTop = rows.scrollHeight / 2; });
      await tab.waitForTimeout(100);
      await tab.locator("tr.stream .expand").nth(14).click();
      assert.equal(await tab.locator("#detail").count(), 1);
      assert.deepEqual(await misplaced(), []);
    });
  });

  test("scrolling renders only the rows in sight", async (context) => {
    await open(file, async (tab) => {
      const { times, most, last } = await tab.evaluate(async () => {
        const rows = document.getElementById("rows");
        const durations = [];
        let count = 0;
        for (let step = 0; step < 60; step++) {
          const start = performance.now();
          rows.scrollTop += 3000;
          rows.dispatchEvent(new Event("scroll"));
          rows.getBoundingClientRect();
          durations.push(performance.now() - start);
          await new Promise(requestAnimationFrame);
          count = Math.max(count, document.querySelectorAll("tr.stream").length);
        }
        const index = Number([...document.querySelectorAll("tr.stream")].at(-1).getAttribute("aria-rowindex"));
        return { times: durations.sort((a, b) => a - b), most: count, last: index };
      });
      context.diagnostic(`a jump to other rows takes ${times[30].toFixed(1)} ms, at most ${times[59].toFixed(1)} ms`);
      assert.ok(most < ROWS_IN_SIGHT, `${most} rows exist at once`);
      assert.ok(last > 1000, `row ${last} is the last one after 60 jumps`);
    });
  });

  test("figures and lists lead to the rows that they name", async () => {
    await open(file, async (tab) => {
      await tab.locator('[data-figure="Plaintext"] a').click();
      assert.equal(await shownCount(tab), inState(facts, "Plaintext"));
      await tab.locator("#controls-list a").first().click();
      assert.equal(await shownCount(tab), facts.streams.filter((stream) => stream.controls.some(({ id, result }) => id === "Kinesis.1" && result === "Failed")).length);
      const name = tab.locator("#attention-list .link").last();
      const text = await name.textContent();
      await name.click();
      assert.equal(await focused(tab, "text"), text);
      assert.equal(await focused(tab, "aria-expanded"), "true");
      assert.equal(await shownCount(tab), facts.streams.length);
    });
  });

  test("a search without result says so", async () => {
    await open(file, async (tab) => {
      await tab.locator("#filter-text").fill("no stream has this name");
      assert.equal(await tab.locator("#shown").textContent(), "No stream matches these filters.");
      assert.equal(await tab.locator("tr.stream").count(), 0);
    });
  });

  test("hostile strings are text", async () => {
    await open(file, async (tab) => {
      for (const text of HOSTILE) {
        await tab.locator("#filter-text").fill(text.toLowerCase());
        assert.ok(await shownCount(tab) >= 1, text);
        const names = await tab.locator("tr.stream .expand bdi").allTextContents();
        assert.ok(names.includes(text), `${text} is not in ${names}`);
        await tab.locator("tr.stream .expand").first().click();
        assert.ok((await tab.locator("#detail").textContent()).includes(text));
        await tab.keyboard.press("Escape");
      }
      await tab.locator("#clear").click();
      await showAll(tab, "#plaintext-list");
      await showAll(tab, "#attention-list");
    });
  });
});

describe("accessibility", () => {
  const facts = fleet(300);
  const file = written(facts);
  for (const [name, options] of [
    ["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }],
    ["phone, light", { colorScheme: "light", viewport: PHONE }], ["phone, dark", { colorScheme: "dark", viewport: PHONE }],
  ]) {
    test(`axe finds no serious violation: ${name}`, async (context) => {
      await open(file, async (tab) => {
        await tab.locator("#all-lanes").check();
        await tab.locator("#filter-text").fill("limitexceeded");
        await tab.locator("#filter-text").fill("team-1");
        const button = tab.locator("tr.stream .expand").nth(1);
        await button.click();
        await tab.evaluate(AXE);
        const results = await tab.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        const counts = { critical: 0, serious: 0, moderate: 0, minor: 0 };
        for (const violation of results.violations) counts[violation.impact] += violation.nodes.length;
        context.diagnostic(`axe: ${Object.entries(counts).map(([impact, n]) => `${n} ${impact}`).join(", ")}; ${results.passes.length} rules passed`);
        assert.deepEqual(results.violations.filter(({ impact }) => impact !== "minor")
          .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`), []);
      }, options);
    });
  }

  test("each state and outcome has its own shape and word", async () => {
    await open(written(small()), async (tab) => {
      const states = await tab.locator(".c-state .state").evaluateAll((badges) => badges.map((badge) => `${badge.textContent} ${badge.querySelector("use").getAttribute("href")}`));
      assert.deepEqual([...new Set(states)].sort(), ["Changing #state-Changing", "Encrypted #state-Encrypted", "Not encryptable #state-NotEncryptable", "Plaintext #state-Plaintext", "Unknown #state-Unknown"]);
      const shapes = await tab.locator("symbol[id^=state-], symbol[id^=call-]").evaluateAll((symbols) => symbols.map((symbol) => symbol.innerHTML));
      assert.equal(new Set(shapes).size, 9);
    });
  });

  test("lanes state their periods and calls as text", async () => {
    await open(written(small()), async (tab) => {
      const lane = await tab.locator(".lane", { hasText: "firmware" }).textContent();
      assert.match(lane, /in plaintext from 2026-03-01 17:06 to 2026-03-01 18:36; encrypted from 2026-03-01 18:36 to now/);
      assert.match(lane, /Stop refused \(ResourceInUseException\) at 2026-03-02 03:48/);
      assert.equal(await tab.locator(".lane").count(), 6);
      await tab.locator("#windows").getByLabel("all").check();
      assert.ok((await tab.locator(".lane").allTextContents()).some((text) => text.includes("shop/orders")));
    });
  });
});

describe("other fleets", () => {
  test("an empty fleet gets an explanation", async () => {
    await open(written({ ...small(), streams: [] }), async (tab) => {
      const text = await tab.locator("main").textContent();
      assert.match(text, /This report has no streams: there is no StreamEncryption in its scope \(all namespaces\), and AWS lists no stream/);
      assert.match(text, /create a StreamEncryption/);
      assert.equal(await tab.locator("table").count(), 0);
    });
  });

  test("one stream with only the required facts is shown", async () => {
    const stream = { stream: "arn:aws:kinesis:eu-west-1:111122223333:stream/one", service: "Kinesis", account: "111122223333", region: "eu-west-1", name: "one", state: "Encrypted", managed: false };
    await open(written({ generatedTime: "2026-03-02T09:00:00Z", version: "0.1.0", scope: "namespace data", aws: false, streams: [stream] }), async (tab) => {
      assert.match(await tab.locator("#verdict").textContent(), /The one stream that can be encrypted is encrypted\./);
      assert.equal(await tab.locator('[data-figure="Encrypted"] .value').textContent(), "100 %");
      assert.match(await tab.locator("#coverage").textContent(), /AWS’s own list of streams is not part of this report/);
      assert.match(await tab.locator("#plaintext-list").textContent(), /No stream of this report is in plaintext/);
      await tab.locator("tr.stream .expand").click();
      assert.match(await tab.locator("#detail").textContent(), /no StreamEncryption/);
    });
  });

  test("a stream of unknown state is not encrypted until now", async () => {
    const stream = { stream: "arn:aws:kinesis:eu-west-1:111122223333:stream/one", service: "Kinesis", account: "111122223333", region: "eu-west-1",
      name: "one", managed: null, encryptedSinceTime: "2026-03-02T07:00:00Z",
      calls: [{ time: "2026-03-02T06:59:00Z", action: "Start", outcome: "Accepted", failed: false, correction: false }] };
    for (const [state, isDrawn] of [["Encrypted", true], ["Unknown", false]]) {
      const facts = { generatedTime: "2026-03-02T09:00:00Z", version: "0.1.0", scope: "namespace data", aws: true, streams: [{ ...stream, state }] };
      await open(written(facts), async (tab) => {
        assert.equal(/encrypted from .* to now/.test(await tab.locator(".lane").textContent()), isDrawn, state);
        // With the resources of some namespaces only, nobody knows who manages the stream.
        assert.equal(await tab.locator('[data-figure="Unmanaged"] .value').textContent(), "0");
        assert.match(await tab.locator("tr.stream").textContent(), /not known/);
      });
    }
  });

  test("a resource that only names the stream is not said to manage it", async () => {
    const facts = fleetOf({ denied: { managed: null, namespace: "t", resource: "orders", ready: "False", reason: "NotPermitted" }, owned: {}, unmanaged: UNMANAGED });
    await open(written(facts), async (tab) => {
      assert.equal(await tab.locator('[data-figure="Unmanaged"] .value').textContent(), "1");
      assert.deepEqual(await tab.locator('[data-figure="Unmanaged"] .sub').allTextContents(), ["33.3 %", "1 not known"]);
      for (const [wanted, name] of [["yes", "owned"], ["no", "unmanaged"], ["unknown", "denied"]]) {
        await tab.locator("#filter-managed").selectOption(wanted);
        assert.deepEqual(await tab.locator("tr.stream .expand bdi").allTextContents(), [name], wanted);
      }
      assert.equal(await tab.locator("tr.stream .c-owner").textContent(), "not known (named by t/orders)");
      await tab.locator("tr.stream .expand").click();
      assert.match(await tab.locator("#detail").innerText(), /Managed by\s+not known \(named by t\/orders\)/);
    });
  });

  test("values of a newer program count as unknown", async () => {
    const facts = small();
    Object.assign(facts.streams[0], { state: "constructor", calls: [{ time: "soon", action: "Start", outcome: "Half" }], controls: [{ id: "New", framework: "Other", result: "Maybe" }], encryptedSinceTime: "yesterday" });
    await open(written(facts), async (tab) => {
      assert.equal(await tab.locator('[data-figure="Unknown"] .value').textContent(), "2");
      assert.deepEqual((await cells(tab, "#controls-list")).at(-1), ["NewOther", "", "0", "0", "0", "1"]);
    });
  });

  test("warnings are shown", async () => {
    const warning = "AWS’s list of streams in 444455556666 could not be read: <b>AccessDenied</b>";
    await open(written({ ...small(), warnings: [warning] }), async (tab) => assert.equal((await tab.locator("#warnings").innerText()).trim(), warning));
    await open(written(small()), async (tab) => assert.ok(!(await tab.locator("#warnings").isVisible())));
  });

  test("a template without facts says so", async () => {
    await open(written(null), async (tab) => assert.match(await tab.locator("header").textContent(), /template without facts/));
  });

  test("without JavaScript, the page says what is missing", async () => {
    await open(main.file, async (tab) => assert.match(await tab.locator("noscript").innerText(), /JavaScript is off/), { javaScriptEnabled: false });
  });

  test("phones need no sideways scrolling", async () => {
    await open(written(small()), async (tab) => {
      for (const selector of ["#plaintext-list .list", "#by-account .list", "#rows"]) {
        assert.ok(await tab.locator(selector).evaluate((element) => element.scrollWidth <= element.clientWidth), selector);
      }
    }, { viewport: PHONE });
  });
});

describe("print", () => {
  test("all rows, lists and figures are printed, and the page is as before afterwards", async (context) => {
    const facts = fleet(1000);
    await open(written(facts), async (tab) => {
      await tab.evaluate(() => addEventListener("beforeprint", () => {
        const visible = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility()).length;
        window.printed = { rows: visible("tr.stream"), plaintext: visible("#plaintext-list tbody tr"), attention: visible("#attention-list tbody tr") };
      }));
      const pdf = await tab.pdf({ format: "A4" });
      assert.deepEqual(await tab.evaluate(() => window.printed), {
        rows: 1000, plaintext: inState(facts, "Plaintext"), attention: facts.streams.filter(needsPerson).length,
      });
      const pages = pdf.toString("latin1").match(/\/Type\s*\/Page\b/g).length;
      context.diagnostic(`1,000 streams are ${pages} pages`);
      assert.ok(pages > 10, `${pages} pages`);
      assert.ok(await tab.locator("tr.stream").count() < 100);
      assert.equal(await tab.locator("#plaintext-list tbody tr").count(), 10);
    });
  });

  test("a print of more than 1,000 rows states what is missing", async () => {
    await open(written(fleet(1200)), async (tab) => {
      await tab.emulateMedia({ media: "print" });
      assert.equal(await tab.locator(".toolbar:visible, nav:visible, .more:visible").count(), 0);
      assert.equal(await tab.locator("[data-figure]:visible").count(), 7);
      assert.equal(await tab.locator("#truncated").innerText(), "This print has the first 1,000 of 1,200 streams. To print the others, filter the list first.");
    });
  });
});
