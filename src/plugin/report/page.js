// The script of the report page. It reads the facts from the element `data` and builds the page once; only the time axis and the table of
// all streams change afterwards. Every string of the facts reaches the page as text (see `h`), never as HTML.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // ---------------------------------------------------------------- elements

  // Creates an element: h("span.sub", { title }, children...). Properties are attributes, or listeners if they are functions. Strings
  // become text nodes; absent and false children are left out.
  const h = (name, ...rest) => {
    const [tag, ...classes] = name.split(".");
    const element = document.createElement(tag);
    if (classes.length > 0) element.className = classes.join(" ");
    return fill(element, rest);
  };
  const isProperties = (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Node);
  const fill = (element, rest) => {
    const properties = isProperties(rest[0]) ? rest.shift() : {};
    for (const [name, value] of Object.entries(properties)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...rest.flat(4).filter((child) => child !== undefined && child !== null && child !== false));
    return element;
  };
  const svg = (tag, ...rest) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), rest);
  const icon = (id) => svg("svg", { class: "icon", "aria-hidden": "true", focusable: "false" }, svg("use", { href: `#${id}` }));
  // Text that others chose: isolated, so that right-to-left text or control characters do not reorder what stands around it.
  const foreign = (text, properties) => h("bdi", properties ?? {}, text);
  // Others' text with ARNs or ids of keys, which break into lines at `:` and `/` only, unless one of their parts is longer than a line.
  const pieces = (arn) => arn.split(/(?<=[:/])/).map((piece) => h("span.piece", piece));
  const withArns = (text) => h("bdi", text.split(/(\b(?:arn:|key\/)[^\s,;]+)/).map((part, index) => (index % 2 === 1 ? pieces(part) : part)));
  // A reason may break into lines before each of its words.
  const reasonOf = (reason, properties) => {
    const words = reason.split(/(?<=[a-z])(?=[A-Z])/);
    return h("bdi", properties ?? {}, words.map((word, index) => [index > 0 && h("wbr"), word]));
  };
  const dash = () => h("span.muted", "–");

  // ------------------------------------------------------------------- words

  const number = new Intl.NumberFormat("en");
  const digits = (n) => number.format(n);
  const count = (n, one, many = `${one}s`) => `${digits(n)} ${n === 1 ? one : many}`;
  // Rounded to one decimal; but 9,999 of 10,000 is not 100 %, and 1 of 10,000 is not 0 %.
  const percent = (n, of) => {
    if (n === 0 || n === of) return of === 0 ? "–" : n === 0 ? "0 %" : "100 %";
    const tenths = Math.round((n / of) * 1000);
    return tenths === 0 ? "< 0.1 %" : tenths === 1000 ? "> 99.9 %" : `${(tenths / 10).toFixed(1)} %`;
  };

  const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
  const millis = (time) => (time ? Date.parse(time) : NaN);
  const utcSeconds = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");
  const utc = (ms) => utcSeconds(ms).slice(0, 16);
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
  const UNITS = [ // unit, its length, and the distance from which on the next larger unit is used
    ["second", SECOND, 2 * MINUTE], ["minute", MINUTE, 2 * HOUR], ["hour", HOUR, 2 * DAY], ["day", DAY, 60 * DAY], ["month", 30.44 * DAY, Infinity],
  ];
  const distance = (ms, from) => {
    const [unit, length] = UNITS.find(([, , limit]) => Math.abs(ms - from) < limit);
    return Math.abs(ms - from) < SECOND ? "now" : relative.format(Math.trunc((ms - from) / length), unit);
  };
  // A time in UTC, with its distance from the time of the report.
  const timeOf = (value, words = utc) => {
    if (!value) return h("span.muted", "not recorded");
    const ms = millis(value);
    if (Number.isNaN(ms)) return foreign(value);
    return h("span.when", h("time", { datetime: value, title: value }, words(ms)), " ", h("span.muted", distance(ms, now)));
  };

  const STATES = {
    Encrypted: { label: "Encrypted", word: "encrypted" },
    Plaintext: { label: "Plaintext", word: "in plaintext" },
    Changing: { label: "Changing", word: "changing" },
    NotEncryptable: { label: "Not encryptable", word: "not encryptable" },
    Unknown: { label: "Unknown", word: "unknown" },
  };
  const ALL_STATES = Object.keys(STATES);
  const OUTCOMES = { Accepted: "accepted", Refused: "refused", Unknown: "outcome unknown", Pending: "no response yet" };
  const RESULTS = {
    Passed: { label: "Passed", icon: "pass" }, Failed: { label: "Failed", icon: "fail" },
    NotApplicable: { label: "Not applicable", icon: "none" }, Unknown: { label: "Unknown", icon: "state-Unknown" },
  };
  // A value that a newer program wrote counts as Unknown.
  const known = (set, value) => (Object.hasOwn(set, value ?? "") ? value : "Unknown");
  const keyWords = (key, service) => {
    if (key === "CUSTOMER_MANAGED_CMK") return "customer managed key that no policy allows";
    if (key !== "AWS_OWNED_CMK") return key ?? "";
    return service === "Kinesis" ? "AWS managed key alias/aws/kinesis" : "AWS-owned key";
  };
  const shortKey = (words) => (words.startsWith("arn:") ? words.slice(words.lastIndexOf(":") + 1) : words);
  // The parts of a key's ARN on two lines; another text as it is.
  const keyLines = (words) => {
    const [, region, account] = /^arn:[^:]*:kms:([^:]+):(\d+):key\/[-\w]+$/.exec(words) ?? [];
    return region ? [foreign(shortKey(words), { class: "key", title: words }), h("span.sub", `${account} in ${region}`)] : foreign(words);
  };

  // ------------------------------------------------------------------- facts

  const data = JSON.parse(byId("data").textContent);
  if (data === null) {
    byId("facts").replaceWith(h("p.notice", "This file is a template without facts. kubectl streamencryption report -o html writes a report."));
    return;
  }
  const now = Number.isNaN(millis(data.generatedTime)) ? Date.now() : millis(data.generatedTime);

  // The streams, each with the values that several parts of the page need.
  const views = (data.streams ?? []).map((stream) => {
    const state = known(STATES, stream.state);
    const since = { Encrypted: stream.encryptedSinceTime, Plaintext: stream.plaintextSinceTime }[state];
    const account = `${stream.account ?? "unknown account"} in ${stream.region ?? "unknown region"}`;
    const [managed, unmanaged] = [stream.managed === true, stream.managed === false]; // null: not known
    // The resource that manages the stream or, if the manager is not known, the one that names it.
    const owner = stream.resource ? `${stream.namespace}/${stream.resource}` : "";
    const key = keyWords(stream.activeKey, stream.service);
    const used = stream.callsUsed ?? 0;
    const left = typeof stream.callsLimit !== "number" ? undefined : Math.max(0, stream.callsLimit - used);
    const searched = [stream.stream, stream.name, owner, account, stream.service, key, stream.desiredKey, stream.reason, stream.message,
      STATES[state].label, stream.encryptionStatus, stream.source].join("\n").toLowerCase();
    const name = stream.name || stream.stream || stream.resource || "";
    return { stream, state, since, sinceMs: millis(since), name, account, managed, unmanaged, owner, key, used, left, searched };
  });
  const isUncertain = (view) => !view.managed && !view.unmanaged;
  const controlName = (control) => `${control.framework} ${control.id}`;
  const states = Object.fromEntries(ALL_STATES.map((state) => [state, views.filter((view) => view.state === state)]));

  const byText = (of) => (a, b) => (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0);
  // Compares numbers, with those that are absent last.
  const byNumber = (of) => (a, b) => {
    const [left, right] = [of(a), of(b)].map((value) => (Number.isFinite(value) ? value : Infinity));
    return left === right ? 0 : left - right;
  };
  const byName = byText((view) => view.name);
  // The least number, without those that are NaN: `Math.min` does not accept as many arguments as a fleet may have streams.
  const least = (numbers) => numbers.reduce((a, b) => (b < a ? b : a), Infinity);

  // ------------------------------------------------------------------- lists

  const PRINTED = 1000; // Rows of each list that are printed at most.
  const printing = []; // Functions (printing: boolean) that prepare a part of the page for the printer, and undo that.

  // A table that shows its first rows, and more on request.
  const list = (target, { caption, columns, items, first = 10, empty }) => {
    if (items.length === 0) {
      fill(target, [h("p.empty", empty)]);
      return;
    }
    const row = (item) => h("tr", { role: "row" }, columns.map((column, index) => {
      const head = index === 0 ? { role: "rowheader", scope: "row" } : { role: "cell" };
      return h(index === 0 ? "th" : "td", { ...head, class: column.class, "data-label": column.label }, h("div", column.cell(item)));
    }));
    const body = h("tbody", { role: "rowgroup" });
    let wanted = first;
    const show = (end) => {
      while (body.childElementCount > end) body.lastChild.remove();
      body.append(...items.slice(body.childElementCount, end).map(row));
      more.hidden = end >= items.length;
      more.textContent = `Show ${digits(Math.min(100, items.length - end))} more of ${digits(items.length - end)}`;
    };
    const more = h("button.more", { type: "button", click: () => {
      const start = wanted;
      show(wanted += 100);
      // The button may have disappeared: the focus moves to the first of the new rows.
      body.children[start].tabIndex = -1;
      body.children[start].focus();
    } });
    const heads = columns.map((column) => h("th", { role: "columnheader", scope: "col", class: column.class }, column.label));
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads));
    const note = items.length > PRINTED && h("p.note.printed", `This print has the first ${digits(PRINTED)} of ${digits(items.length)} rows.`);
    fill(target, [h("div.list", h("table", { role: "table" }, h("caption", caption), head, body)), more, note]);
    show(first);
    printing.push((on) => show(on ? Math.max(wanted, PRINTED) : wanted));
  };

  // Segments in proportion: [class, number] each. The style makes each at least some pixels wide, so that one stream among thousands is
  // visible.
  const segments = (sums) => sums.filter(([, n]) => n > 0).map(([kind, n]) => {
    const segment = h(`span.segment.${kind}`);
    segment.style.flexGrow = n;
    return segment;
  });
  const bar = (...sums) => h("div.bar", { "aria-hidden": "true" }, segments(sums));
  const alert = (...words) => h("span.alert", icon("flag"), words);
  const placeOf = (view) => h("span.sub", foreign(view.stream.service ?? "Unknown service"), ", ", foreign(view.account, { class: "place" }));
  const unknownOwner = ({ owner }) => (owner ? `not known (named by ${owner})` : "not known");
  const ownerOf = (view) => (view.managed ? foreign(view.owner) : foreign(view.unmanaged ? "not managed" : unknownOwner(view), { class: "muted" }));
  const leftOf = (view) => (view.left === undefined ? dash() : `${view.left} of ${view.stream.callsLimit}`);
  const messageOf = ({ stream: { reason, message } }) => [reason && [h("code", foreign(reason)), " "], message && withArns(message)];
  const STREAM = { label: "Stream", cell: (view) => [
    h("button.link", { type: "button", title: "Show in the table of all streams", click: () => table.reveal(view) }, foreign(view.name)), placeOf(view),
  ] };
  const OWNER = { label: "Managed by", class: "owner", cell: ownerOf };
  const MESSAGE = { label: "Reason", class: "message", cell: messageOf };
  const counted = (label, of) => ({ label, class: "count", cell: (item) => digits(of(item)) });

  // ------------------------------------------------------ header and summary

  const header = () => {
    const age = Date.now() - now > HOUR && h("span.muted", ` (${distance(now, Date.now())})`);
    const accounts = (data.accounts ?? []).map((account, index) => [index > 0 && ", ", foreign(account)]);
    const facts = {
      Cluster: foreign(data.server ?? "not recorded"),
      Generated: [h("time", { datetime: data.generatedTime }, utcSeconds(now)), " UTC", age],
      Scope: foreign(data.scope ?? "not recorded"),
      Sources: data.aws ? ["StreamEncryptions, ledgers and AWS’s own list of streams in ", accounts] : "StreamEncryptions and ledgers of the cluster",
    };
    byId("facts").append(...Object.entries(facts).map(([term, value]) => h("div", h("dt", term), h("dd", value))));
    const unread = (data.unread ?? []).map((problem) => `This report is incomplete: ${problem}`);
    const warnings = [...unread, ...(data.warnings ?? [])];
    fill(byId("warnings"), warnings.map((warning) => h("li", icon("flag"), " ", foreign(warning))));
    byId("warnings").hidden = warnings.length === 0;
    document.title = `Stream encryption report, ${utc(now)} UTC${data.server ? `, ${data.server}` : ""}`;
    byId("version").append(foreign(data.version ?? "of an unknown version"));
  };

  const verdict = () => {
    const encrypted = states.Encrypted.length;
    const possible = views.length - states.NotEncryptable.length;
    const first = encrypted < possible || possible === 0
      ? `${digits(encrypted)} of ${count(views.length, "stream")} ${encrypted === 1 ? "is" : "are"} encrypted. `
      : possible === 1 ? "The one stream that can be encrypted is encrypted. " : `All ${digits(possible)} streams that can be encrypted are encrypted. `;
    const plaintext = states.Plaintext.length;
    const oldest = least(states.Plaintext.map((view) => view.sinceMs));
    const date = () => [h("time", now - oldest < DAY ? `${utc(oldest)} UTC` : utc(oldest).slice(0, 10)), ` (${distance(oldest, now)})`];
    const allKnown = states.Plaintext.every((view) => Number.isFinite(view.sinceMs));
    const words = plaintext === 1 ? ", since " : allKnown ? ", the first since " : ", the first known since ";
    const since = Number.isFinite(oldest) && [words, date()];
    const unknown = states.Unknown.length;
    return [
      first,
      plaintext > 0 && [h("strong", count(plaintext, "stream is", "streams are"), " in plaintext", since, "."), " "],
      unknown > 0 && `The state of ${count(unknown, "stream")} is unknown.`,
    ];
  };

  const summary = () => {
    const total = views.length;
    const unmanaged = views.filter((view) => view.unmanaged).length;
    const uncertain = views.filter(isUncertain).length;
    fill(byId("verdict"), verdict());
    const words = ALL_STATES.map((state) => `${digits(states[state].length)} ${STATES[state].word}`).join(", ");
    fill(byId("overview"), [{ "aria-label": `${count(total, "stream")}: ${words}.` }, segments(ALL_STATES.map((state) => [state, states[state].length]))]);
    // The figures are the legend of the bar, and each filters the table of all streams.
    const figure = (name, label, value, sub, filter) => {
      const subs = [sub].flat().map((line) => h("span.sub", line));
      const parts = [h("span.label", Object.hasOwn(STATES, name) && h(`span.swatch.${name}`), label), h("span.value", value), subs];
      return h("li", { "data-figure": name }, filter ? h("a", { href: "#streams", click: () => table.filter(filter) }, parts) : parts);
    };
    fill(byId("figures"), [
      figure("Streams", "Streams", digits(total), "in this report", {}),
      ALL_STATES.map((state) => {
        const [n, share] = [states[state].length, percent(states[state].length, total)];
        const possible = total - states.NotEncryptable.length;
        const values = state !== "Encrypted" ? [digits(n), share]
          : [share, [`${digits(n)} of ${digits(total)}`, `${digits(n)} of ${digits(possible)} that can be encrypted`]];
        return figure(state, STATES[state].label, ...values, { state });
      }),
      data.aws ? figure("Unmanaged", "Not managed", digits(unmanaged),
        [percent(unmanaged, total), ...(uncertain > 0 ? [`${digits(uncertain)} not known`] : [])], { managed: "no" })
        : figure("Unmanaged", "Not managed", "–", "not determined"),
    ]);
    byId("coverage").hidden = data.aws === true;
  };

  // -------------------------------------------------------- accounts and keys

  // Groups by a text, with the largest first.
  const grouped = (items, of) => {
    const groups = new Map();
    for (const item of items) {
      const name = of(item);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(item);
    }
    return [...groups].map(([name, members]) => ({ name, members, total: members.length })).sort((a, b) => b.total - a.total);
  };

  const distribution = () => {
    const within = (group, state) => group.members.filter((view) => view.state === state).length;
    list(byId("by-account"), {
      caption: "By account and region", items: grouped(views, (view) => view.account), first: 8, empty: "There are no accounts.",
      columns: [
        { label: "Account", cell: (group) => foreign(group.name, { class: "place" }) },
        { label: "Share", class: "picture", cell: (group) => bar(...ALL_STATES.map((state) => [state, within(group, state)])) },
        { label: "Percent encrypted", class: "percent", cell: (group) => percent(within(group, "Encrypted"), group.total) },
        ...ALL_STATES.map((state) => counted(STATES[state].label, (group) => within(group, state))),
        counted("Streams", (group) => group.total),
      ],
    });
    const keyed = views.filter((view) => view.key);
    list(byId("by-key"), {
      caption: "By active key", items: grouped(keyed, (view) => view.key), first: 8, empty: "No stream of this report has a known active key.",
      columns: [
        { label: "Active key", cell: (group) => keyLines(group.name) },
        { label: "Share", class: "picture", cell: (group) => bar(["Encrypted", group.total], ["rest", keyed.length - group.total]) },
        counted("Streams", (group) => group.total),
        { label: "Percent", class: "count", cell: (group) => percent(group.total, keyed.length) },
        { label: "Usable", cell: (group) => {
          const unusable = group.members.filter((view) => view.stream.activeKeyUnusableSinceTime).length;
          return unusable > 0 ? alert(`unusable on ${count(unusable, "stream")}`) : "no problem reported";
        } },
      ],
    });
  };

  // ------------------------------------------- plaintext, attention and calls

  const plaintextList = () => list(byId("plaintext-list"), {
    caption: "Streams in plaintext", empty: "No stream of this report is in plaintext.",
    items: [...states.Plaintext].sort((a, b) => byNumber((view) => view.sinceMs)(a, b) || byName(a, b)),
    columns: [STREAM, { label: "Since (UTC)", class: "time", cell: (view) => timeOf(view.since) }, OWNER, MESSAGE],
  });

  // The reasons of a resource that is not ready, and for which nobody needs to do anything: it resolves by itself. Each other reason, also
  // one of a newer operator, needs a person.
  const RESOLVING = new Set(["Encrypted", "EncryptionDisabled", "KeyEnabled", "Settling", "Verifying", "Enabling", "Disabling", "StreamUpdating",
    "StreamInUse", "StreamCreating", "OutcomeUnknown", "AwsThrottled", "AwsUnreachable"]);
  const isSuspended = (stream) => stream.suspended || stream.reason === "Suspended";
  // Without a reason, the operator has not seen the resource yet, or there is no resource.
  const isStuck = ({ ready, reason }) => Boolean(reason) && ready !== "True" && !RESOLVING.has(reason);
  const needsPerson = ({ stream }) => Boolean(stream.activeKeyUnusableSinceTime || stream.stalled || isSuspended(stream) || isStuck(stream));
  const problemsOf = (view) => {
    const { stream, state } = view;
    if (!needsPerson(view)) return [];
    const badges = [
      stream.activeKeyUnusableSinceTime && alert("Active key unusable"), state === "Plaintext" && alert("In plaintext"),
      stream.stalled && alert("Stalled"), isSuspended(stream) && h("span.calm", icon("pause"), "Suspended"),
    ].filter(Boolean);
    return badges.length > 0 ? badges : [alert("Not ready")];
  };
  // The worst is first: records are lost, then records are in plaintext, and last what somebody suspended.
  const severity = ({ stream, state }) => (stream.activeKeyUnusableSinceTime ? 0 : state === "Plaintext" ? 1 : isSuspended(stream) ? 3 : 2);
  const troubled = views.filter(needsPerson);
  const byUnusableSince = byNumber((view) => millis(view.stream.activeKeyUnusableSinceTime));
  const byPlaintextSince = byNumber((view) => (view.state === "Plaintext" ? view.sinceMs : NaN));
  const attentionList = () => list(byId("attention-list"), {
    caption: "Resources that need attention", empty: "No resource needs somebody: each is ready, or becomes ready by itself.",
    items: [...troubled].sort((a, b) => severity(a) - severity(b) || byUnusableSince(a, b) || byPlaintextSince(a, b) || byName(a, b)),
    columns: [STREAM, { label: "Problem", class: "problem", cell: (view) => [
      problemsOf(view), view.stream.activeKeyUnusableSinceTime && h("span.sub", "since ", timeOf(view.stream.activeKeyUnusableSinceTime)),
    ] }, OWNER, MESSAGE],
  });

  // From when the limit allows a call. While calls are left, `callsNextAvailableTime` is when the oldest call stops counting; otherwise it
  // is the time from which the next call is allowed. It may have passed since the status was written.
  const allowedFrom = ({ stream, left }) => {
    const time = stream.callsNextAvailableTime;
    const later = millis(time) > now;
    if (left === 0 && (later || !time)) return [timeOf(time)];
    return ["now", later && h("span.sub", "one more from ", timeOf(time))];
  };
  // The same, and when the operator makes the next call. Without such a time, it needs none now.
  const nextCall = (view) => {
    const attempt = view.stream.nextAttemptTime;
    return [...allowedFrom(view), millis(attempt) > now && h("span.sub", "next attempt at ", timeOf(attempt))];
  };
  const callsList = () => list(byId("calls-list"), {
    caption: "Encryption calls left", empty: "The operator made no encryption call that counts now.",
    items: views.filter((view) => view.used > 0 && view.left !== undefined).sort((a, b) => a.left - b.left || b.used - a.used || byName(a, b)),
    columns: [
      STREAM,
      { label: "Used", class: "picture", cell: (view) => bar([view.left === 0 ? "full" : "used", view.used], ["rest", view.left]) },
      { label: "Calls left", class: "budget", cell: (view) => (view.left === 0 ? alert(leftOf(view)) : leftOf(view)) },
      { label: "Allowed from (UTC)", class: "next", cell: nextCall },
      { label: "Ready reason", cell: ({ stream }) => stream.reason && h("code", foreign(stream.reason)) },
    ],
  });

  // --------------------------------------------------------------- controls

  const controls = (() => {
    const found = new Map();
    for (const { stream } of views) for (const control of stream.controls ?? []) {
      const name = controlName(control);
      if (!found.has(name)) found.set(name, { name, control, results: Object.fromEntries(Object.keys(RESULTS).map((result) => [result, 0])) });
      found.get(name).results[known(RESULTS, control.result)] += 1;
    }
    const FRAMEWORKS = ["Prowler", "AWS Config", "AWS Security Hub"];
    const rank = ({ control }) => -FRAMEWORKS.indexOf(control.framework);
    return [...found.values()].sort((a, b) => rank(a) - rank(b) || byText(({ name }) => name)(a, b));
  })();
  const controlsList = () => list(byId("controls-list"), {
    caption: "Streams by control and result", items: controls, first: 20, empty: "No stream of this report has the result of a control.",
    columns: [
      { label: "Control", cell: ({ control }) => [h("code", foreign(control.id)), h("span.sub", foreign(control.framework))] },
      { label: "Share", class: "picture", cell: ({ results }) => bar(...Object.entries(results)) },
      counted("Passed", ({ results }) => results.Passed),
      { label: "Failed", class: "count", cell: ({ name, results }) => {
        const words = `Show the ${count(results.Failed, "stream")} that failed ${name}`;
        const show = () => table.filter({ control: name });
        return results.Failed === 0 ? "0" : h("a", { href: "#streams", "aria-label": words, click: show }, digits(results.Failed));
      } },
      counted("Not applicable", ({ results }) => results.NotApplicable),
      counted("Unknown", ({ results }) => results.Unknown),
    ],
  });

  // ------------------------------------------------------------ transitions

  const callsOf = ({ stream }) => stream.calls ?? [];
  const plaintextOf = ({ stream }) => stream.plaintextPeriods ?? [];
  // The periods in which a stream is known to have been encrypted or in plaintext, oldest first. The time before them is unknown.
  const periodsOf = (view) => {
    const plain = plaintextOf(view)
      .map(({ fromTime, toTime }) => ({ kind: "Plaintext", from: millis(fromTime), to: toTime ? millis(toTime) : now }))
      .filter((period) => period.from <= period.to).sort((a, b) => a.from - b.from);
    const since = millis(view.stream.plaintextSinceTime);
    if (since <= now && !plain.some((period) => period.to >= now)) plain.push({ kind: "Plaintext", from: since, to: now });
    const encrypted = millis(view.stream.encryptedSinceTime);
    // A stream that AWS does not describe any more has the time of its last state only.
    if (plain.length === 0) return encrypted <= now && view.state === "Encrypted" ? [{ kind: "Encrypted", from: encrypted, to: now }] : [];
    return plain.flatMap((period, index) => {
      const next = plain[index + 1]?.from ?? (view.state === "Encrypted" ? now : undefined);
      return next > period.to ? [period, { kind: "Encrypted", from: period.to, to: next }] : [period];
    });
  };
  const byOthers = (call) => (call.external ? `, by others${call.callerType ? ` (${call.callerType})` : ""}` : "");
  const callWords = (call) => {
    const code = call.code ? ` (${call.code})` : "";
    return `${call.action} ${OUTCOMES[known(OUTCOMES, call.outcome)]}${code}${call.correction ? ", corrects drift" : ""}${byOthers(call)}`;
  };
  const timeWords = (time) => (Number.isNaN(millis(time)) ? time : utcSeconds(millis(time)));
  const periodWords = ({ kind, from, to }) => {
    const words = to - from < 2 * MINUTE ? utcSeconds : utc;
    return `${STATES[kind].word} from ${words(from)} to ${to >= now ? "now" : words(to)}`;
  };
  const lastTransition = (view) => -least([
    ...callsOf(view).map((call) => -millis(call.time)), ...plaintextOf(view).map((period) => -millis(period.toTime ?? period.fromTime)),
  ]);
  const MARK = 13; // px: the width of the mark of a call, with a gap
  // Moves the places of marks, in order, as far as needed so that none covers another: to the left, or to the right at the left end.
  const spread = (places, width) => {
    const gap = Math.min(MARK, width / Math.max(1, places.length - 1));
    const spaced = [...places];
    for (let i = spaced.length - 2; i >= 0; i--) spaced[i] = Math.min(spaced[i], spaced[i + 1] - gap);
    for (let i = 0; i < spaced.length; i++) spaced[i] = Math.max(spaced[i], i === 0 ? 0 : spaced[i - 1] + gap);
    return spaced;
  };

  const transitions = () => {
    const scroller = byId("lanes");
    const canvas = byId("canvas");
    const moved = views.map((view) => [lastTransition(view), view]).filter(([last]) => Number.isFinite(last))
      .sort((a, b) => b[0] - a[0] || byName(a[1], b[1]));
    const earliest = least([now - 30 * DAY, ...moved.flatMap(([, view]) => periodsOf(view).map((period) => period.from))]);
    const WINDOWS = [ // name, length, distance of the ticks
      ["1 hour", HOUR, 10 * MINUTE], ["25 hours", 25 * HOUR, 3 * HOUR], ["7 days", 7 * DAY, DAY], ["30 days", 30 * DAY, 5 * DAY],
      ["all", (now - earliest) * 1.02, Math.ceil((now - earliest) / 6 / DAY) * DAY],
    ];
    const movedSince = (start) => moved.filter(([last]) => last >= start).map(([, view]) => view);
    // At first, the shortest window with a transition; the last hour only if it has everything of the last 25 hours.
    const recent = least(moved.flatMap(([, view]) => [
      ...callsOf(view).map((call) => millis(call.time)), ...plaintextOf(view).flatMap(({ fromTime, toTime }) => [millis(fromTime), millis(toTime)]),
    ]).filter((ms) => ms >= now - 25 * HOUR));
    let [, length, step] = WINDOWS.slice(recent >= now - HOUR ? 0 : 1).find(([, each]) => movedSince(now - each).length > 0) ?? WINDOWS[1];
    let lanes = [];
    const x = (ms) => `${Math.min(100, Math.max(0, ((ms - (now - length)) / length) * 100))}%`;
    const at = (element, ms) => { element.style.left = x(ms); return element; };

    const axis = () => {
      const ticks = [];
      for (let tick = Math.ceil((now - length) / step) * step; tick <= now; tick += step) {
        const midnight = step < DAY && tick % DAY === 0;
        const label = step < DAY && !midnight ? utc(tick).slice(11) : utc(tick).slice(5, 10);
        // The label "now" needs its place.
        ticks.push(at(h(midnight ? "span.tick.day" : "span.tick", now - tick > length / 10 && h("span", label)), tick));
      }
      ticks.push(at(h("span.tick.now", h("span", "now")), now));
      byId("axis").replaceChildren(h("span.label", "UTC"), h("div.track", ticks));
    };
    const lane = (view, index, width) => {
      const periods = periodsOf(view);
      const shapes = periods.filter((period) => period.to > now - length).map((period) => {
        const segment = at(h(`span.segment.${period.kind}`, { title: periodWords(period) }), period.from);
        segment.style.right = `calc(100% - ${x(period.to)})`;
        return segment;
      });
      const calls = callsOf(view).filter((call) => millis(call.time) >= now - length).sort(byNumber((call) => millis(call.time)));
      // The marks above the line, and those below it.
      const marks = ["start", "stop"].flatMap((side) => {
        const these = calls.filter((call) => (call.action === "Stop") === (side === "stop"));
        const places = spread(these.map((call) => (Math.min(1, (millis(call.time) - (now - length)) / length)) * width), width);
        return these.map((call, each) => {
          const outcome = known(OUTCOMES, call.outcome);
          const mark = h(`span.call.${outcome}.${side}`, { title: `${timeWords(call.time)} ${callWords(call)}` }, icon(`call-${outcome}`));
          mark.style.left = `${(places[each] / width) * 100}%`;
          return mark;
        });
      });
      const words = [...periods.map(periodWords), ...callsOf(view).map((call) => `${callWords(call)} at ${timeWords(call.time)}`)].join("; ");
      return h("div.lane", { role: "listitem", "aria-setsize": lanes.length, "aria-posinset": index + 1 },
        h("span.label", foreign(view.name, { title: view.stream.stream }), h("span.sub", ownerOf(view))),
        h("div.track", { "aria-hidden": "true" }, shapes, marks), h("span.hidden", `: ${words}`));
    };
    // Only the lanes in sight exist. `printed` is the number of lanes for the printer, which does not scroll.
    const draw = (printed) => {
      const height = parseFloat(getComputedStyle(canvas).getPropertyValue("--lane"));
      const first = printed ? 0 : Math.max(0, Math.floor(scroller.scrollTop / height) - 4);
      const end = printed ?? first + Math.ceil(scroller.clientHeight / height) + 8;
      canvas.style.height = `${Math.min(lanes.length, printed ?? lanes.length) * height}px`;
      const width = printed ? 500 : byId("axis").lastChild.clientWidth || 500; // of the tracks; of those on paper, at least
      canvas.replaceChildren(...lanes.slice(first, end).map((view, index) => {
        const element = lane(view, first + index, width);
        element.style.top = `${(first + index) * height}px`;
        return element;
      }));
    };
    const update = () => {
      const moving = new Set(movedSince(now - length));
      const still = byId("all-lanes").checked ? views.filter((view) => !moving.has(view) && periodsOf(view).length > 0).sort(byName) : [];
      lanes = [...moving, ...still];
      const rest = still.length > 0 ? `; ${digits(still.length)} without one ${still.length === 1 ? "follows" : "follow"}` : "";
      byId("lanes-count").textContent = `${moving.size === 0 ? "No stream has" : count(moving.size, "stream has", "streams have")}`
        + ` a recorded transition in this period${rest}.`;
      scroller.hidden = lanes.length === 0;
      scroller.scrollTop = 0;
      axis();
      draw();
    };
    fill(byId("windows"), WINDOWS.map(([name, each, ticks]) => {
      const change = () => { [length, step] = [each, ticks]; update(); };
      return h("label", h("input", { type: "radio", name: "window", checked: each === length, change }), h("span", name));
    }));
    byId("all-lanes").addEventListener("change", update);
    scroller.addEventListener("scroll", () => draw(), { passive: true });
    new ResizeObserver(() => requestAnimationFrame(() => draw())).observe(scroller);
    printing.push((on) => draw(on ? 60 : undefined));
    update();
  };

  // ----------------------------------------------------- table of all streams

  // Details of a stream, which are a row below its own.
  const details = (view) => {
    const { stream, key, managed, unmanaged, owner } = view;
    const facts = {
      "ARN": withArns(stream.stream ?? "not recorded"),
      "Managed by": managed ? ["StreamEncryption ", foreign(owner)] : unmanaged ? "no StreamEncryption" : foreign(unknownOwner(view)),
      "Ready": stream.ready && foreign(stream.ready),
      "AWS reports": stream.encryptionStatus && foreign(stream.encryptionStatus),
      "Source": stream.source && foreign(stream.source),
      "Active key": key && withArns(key),
      "Desired key": stream.desiredKey && withArns(keyWords(stream.desiredKey, stream.service)),
      "Encryption calls": typeof stream.callsLimit === "number" && `${stream.callsUsed ?? 0} of ${stream.callsLimit} used${stream.callsExternal ? `, ${stream.callsExternal} by others` : ""}`,
      "Call allowed from": stream.callsNextAvailableTime && view.left !== undefined && allowedFrom(view),
    };
    const times = {
      "Active key unusable since": stream.activeKeyUnusableSinceTime, "Encrypted since": stream.encryptedSinceTime,
      "In plaintext since": stream.plaintextSinceTime, "Test record encrypted": stream.verifiedTime,
      "Last described": stream.lastDescribeTime, "Next attempt": stream.nextAttemptTime,
    };
    for (const [term, time] of Object.entries(times)) facts[term] = time && timeOf(time);
    const group = (title, items, each) => items?.length > 0 && h("div", h("h3", title), h("ul", items.map((item) => h("li", each(item)))));
    return h("div.details",
      h("p.message", problemsOf(view), messageOf({ stream })),
      h("dl", Object.entries(facts).filter(([, value]) => value).map(([term, value]) => h("div", h("dt", term), h("dd", value)))),
      group("Controls", stream.controls, (control) => {
        const result = known(RESULTS, control.result);
        const badge = h(`span.result.${result}`, icon(RESULTS[result].icon), RESULTS[result].label);
        return [badge, " ", foreign(controlName(control)), control.note && [": ", foreign(control.note)]];
      }),
      group("Calls in the ledger", stream.calls, (call) => {
        const words = keyWords(call.key, stream.service);
        const withKey = words && [" with ", foreign(shortKey(words), { class: "key", title: words })];
        return [icon(`call-${known(OUTCOMES, call.outcome)}`), " ", timeOf(call.time, utcSeconds), " ", foreign(callWords(call)), withKey];
      }),
      group("Periods in plaintext", stream.plaintextPeriods,
        ({ fromTime, toTime }) => ["from ", timeOf(fromTime), toTime ? [" to ", timeOf(toTime)] : " until now"]));
  };

  const STATE_ORDER = ["Plaintext", "Changing", "Unknown", "NotEncryptable", "Encrypted"];
  const COLUMNS = [
    { id: "name", label: "Stream", compare: byName },
    { id: "state", label: "State", compare: byNumber((view) => STATE_ORDER.indexOf(view.state)),
      cell: ({ state }) => h(`span.state.${state}`, icon(`state-${state}`), h("span", STATES[state].label)) },
    { id: "since", label: "Since (UTC)", compare: byNumber((view) => view.sinceMs), cell: (view) => (view.since ? timeOf(view.since) : dash()) },
    { id: "key", label: "Active key", compare: byText((view) => view.key),
      cell: ({ key }) => (key ? foreign(shortKey(key), { class: "key", title: key }) : dash()) },
    { id: "owner", label: "Managed by", compare: byText((view) => view.owner), cell: ownerOf },
    { id: "reason", label: "Ready reason", compare: byText(({ stream }) => stream.reason ?? ""),
      cell: ({ stream: { reason, message } }) => (reason ? reasonOf(reason, { title: message }) : dash()) },
    { id: "left", label: "Calls left", compare: byNumber((view) => view.left), cell: leftOf },
  ];

  // The table has all streams, but only the rows in sight exist, with the active row (which has the focus, or receives it next) and the
  // open one. Empty rows keep the place of the others. All rows have one height, except the details below the open row.
  const table = (() => {
    const scroller = byId("rows");
    const body = byId("body");
    const rendered = new Map(); // view -> its row
    let shown = [];
    let active = 0; // index in `shown`
    let open; // view whose details are open
    let detailRow;
    let height = 56; // of a row; measured when the first one exists
    let printed = false;
    const sort = { column: COLUMNS[0], descending: false };
    const FILTERS = {
      text: (view, wanted) => view.searched.includes(wanted.trim().toLowerCase()),
      state: (view, wanted) => view.state === wanted,
      account: (view, wanted) => view.account === wanted,
      service: (view, wanted) => view.stream.service === wanted,
      managed: (view, wanted) => (wanted === "yes" ? view.managed : wanted === "no" ? view.unmanaged : isUncertain(view)),
      control: (view, wanted) => (view.stream.controls ?? []).some((control) => control.result === "Failed" && controlName(control) === wanted),
    };
    const input = (name) => byId(`filter-${name}`);

    const makeRow = (view) => {
      const name = foreign(view.name, { title: view.stream.stream });
      const button = h("button.expand", { type: "button" }, h("span.chevron", { "aria-hidden": "true" }), name);
      const cells = COLUMNS.map(({ id, cell }) => (cell ? h(`td.c-${id}`, { role: "cell" }, h("div", cell(view)))
        : h(`th.c-${id}`, { role: "rowheader", scope: "row" }, button, placeOf(view))));
      return Object.assign(h("tr.stream", { role: "row" }, cells), { view });
    };
    const spacer = (rows) => {
      const cell = h("td", { colspan: COLUMNS.length, role: "presentation" });
      cell.style.height = `${rows * height}px`;
      return h("tr.spacer", { role: "presentation", "aria-hidden": "true" }, cell);
    };
    const detailHeight = () => detailRow?.getBoundingClientRect().height ?? 0;

    const draw = () => {
      const opened = open ? shown.indexOf(open) : -1;
      const last = shown.length - 1;
      const hiddenDetail = opened < 0 ? 0 : Math.min(detailHeight(), Math.max(0, scroller.scrollTop - opened * height));
      const first = printed ? 0 : Math.max(0, Math.floor((scroller.scrollTop - hiddenDetail) / height) - 8);
      const end = Math.min(last, printed ? PRINTED - 1 : first + Math.ceil(scroller.clientHeight / height) + 16);
      const wanted = new Set(printed || last < 0 ? [] : [active, opened].filter((index) => index >= 0));
      for (let index = first; index <= end; index++) wanted.add(index);
      const wantedViews = new Set([...wanted].map((index) => shown[index]));

      for (const [view, row] of rendered) if (!wantedViews.has(view)) { row.remove(); rendered.delete(view); }
      for (const row of body.querySelectorAll(".spacer")) row.remove();
      if (detailRow && !wanted.has(opened)) detailRow.remove();
      // Rows that exist already stay in the document, because a row that moves loses the focus.
      let next = body.firstChild;
      const place = (row) => {
        if (row === next) next = next.nextSibling;
        else body.insertBefore(row, next);
      };
      let previous = -1;
      for (const index of [...wanted].sort((a, b) => a - b)) {
        const view = shown[index];
        if (index > previous + 1) place(spacer(index - previous - 1));
        if (!rendered.has(view)) rendered.set(view, makeRow(view));
        const row = rendered.get(view);
        place(row);
        row.setAttribute("aria-rowindex", index + 2 + (opened >= 0 && index > opened ? 1 : 0));
        row.classList.toggle("open", index === opened);
        const button = row.querySelector("button");
        button.tabIndex = index === active ? 0 : -1;
        button.setAttribute("aria-expanded", index === opened);
        if (index === opened && detailRow) {
          place(detailRow);
          detailRow.setAttribute("aria-rowindex", index + 3);
        }
        previous = index;
      }
      if (!printed && previous < last) body.append(spacer(last - previous));
      // The table grows by the details, so that they are not in a box that scrolls.
      scroller.style.setProperty("--detail", `${detailHeight()}px`);
      byId("table").setAttribute("aria-rowcount", shown.length + 1 + (opened >= 0 ? 1 : 0));
      // The height of a row follows from the style and the size of the font.
      const measured = !printed && rendered.size > 0 && rendered.values().next().value.getBoundingClientRect().height;
      if (measured && Math.abs(measured - height) > 0.01) { height = measured; draw(); }
    };

    const refresh = () => {
      const before = shown[active];
      const filters = Object.entries(FILTERS).map(([name, matches]) => [input(name).value, matches]).filter(([wanted]) => wanted !== "");
      const direction = sort.descending ? -1 : 1;
      shown = views.filter((view) => filters.every(([wanted, matches]) => matches(view, wanted)))
        .sort((a, b) => direction * sort.column.compare(a, b) || byName(a, b));
      active = Math.max(0, shown.indexOf(before));
      if (!shown.includes(open)) { open = undefined; detailRow = undefined; }
      // Rows are in another order now: all are made again.
      body.replaceChildren();
      rendered.clear();
      scroller.scrollTop = 0;
      for (const head of byId("columns").children) {
        if (head.dataset.column === sort.column.id) head.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
      byId("shown").textContent = shown.length === 0 ? "No stream matches these filters."
        : shown.length === views.length ? `${count(shown.length, "stream")}.` : `${digits(shown.length)} of ${count(views.length, "stream")}.`;
      byId("clear").disabled = filters.length === 0;
      byId("truncated").textContent = shown.length <= PRINTED ? ""
        : `This print has the first ${digits(PRINTED)} of ${digits(shown.length)} streams. To print the others, filter the list first.`;
      draw();
    };

    const focus = (index) => {
      if (shown.length === 0) return;
      active = Math.min(shown.length - 1, Math.max(0, index));
      const top = active * height + (open && active > shown.indexOf(open) ? detailHeight() : 0);
      // Scrolls as far as needed to show the row, and its details if there is room below the row.
      const bottom = top + height + (shown[active] === open ? detailHeight() : 0);
      const room = scroller.clientHeight - byId("columns").getBoundingClientRect().height;
      scroller.scrollTop = Math.min(top, Math.max(scroller.scrollTop, bottom - room));
      draw();
      const row = rendered.get(shown[active]);
      row.querySelector("button").focus({ preventScroll: true });
      row.scrollIntoView({ block: "nearest", behavior: "instant" }); // the page around the table
    };
    // Opens the details of a view, or closes them with `undefined`. The active row keeps its place on the screen.
    const openDetails = (view) => {
      const row = rendered.get(shown[active]);
      const top = row.getBoundingClientRect().top;
      open = view;
      detailRow?.remove();
      detailRow = view && h("tr.detail", { role: "row", id: "detail" }, h("td", { role: "cell", colspan: COLUMNS.length }, details(view)));
      draw();
      scroller.scrollTop += row.getBoundingClientRect().top - top;
    };
    const toggle = (view) => {
      focus(shown.indexOf(view));
      openDetails(open === view ? undefined : view);
      focus(active);
    };
    const filter = (wanted) => {
      for (const name of Object.keys(FILTERS)) input(name).value = wanted[name] ?? "";
      refresh();
    };
    // Opens a stream that another list names.
    const reveal = (view) => {
      if (!shown.includes(view)) filter({});
      byId("streams").scrollIntoView();
      if (open === view) focus(shown.indexOf(view));
      else toggle(view);
    };

    const setUp = () => {
      const options = (name, choices) => fill(input(name), choices.map(([value, label = value]) => h("option", { value }, label)));
      const values = (of) => [...new Set(views.map(of).filter(Boolean))].sort().map((value) => [value]);
      options("state", ALL_STATES.map((state) => [state, STATES[state].label]));
      options("account", values((view) => view.account));
      options("service", values((view) => view.stream.service));
      options("control", controls.map(({ name }) => [name, `Failed ${name}`]));
      for (const name of Object.keys(FILTERS)) input(name).addEventListener("input", refresh);
      byId("clear").addEventListener("click", () => { filter({}); input("text").focus(); });
      fill(byId("columns"), COLUMNS.map((column) => {
        const click = () => {
          sort.descending = sort.column === column && !sort.descending;
          sort.column = column;
          refresh();
        };
        const button = h("button", { type: "button", click }, column.label, h("span.arrow", { "aria-hidden": "true" }));
        // Browsers repeat the head on each printed page only if it contains no button.
        const printed = h("span.printed", { "aria-hidden": "true" }, column.label);
        return h(`th.c-${column.id}`, { role: "columnheader", scope: "col", "data-column": column.id }, button, printed);
      }));

      body.addEventListener("click", (event) => {
        const row = event.target.closest("tr.stream");
        // A click that ends a selection of text does not open the row.
        if (row && (event.target.closest("button") || getSelection().isCollapsed)) toggle(row.view);
      });
      body.addEventListener("keydown", (event) => {
        if (!event.target.matches("button.expand") || event.ctrlKey || event.altKey || event.metaKey) return;
        const page = Math.max(1, Math.floor(scroller.clientHeight / height) - 2);
        const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
        if (!Object.hasOwn(steps, event.key)) return;
        event.preventDefault();
        focus(active + steps[event.key]);
      });
      body.addEventListener("focusin", (event) => {
        const row = event.target.closest("tr.stream");
        if (row) { active = shown.indexOf(row.view); draw(); }
      });
      document.addEventListener("keydown", (event) => {
        // In a search field with text, Escape clears the text.
        if (event.key === "Escape" && open && !(event.target.type === "search" && event.target.value)) openDetails(undefined);
      });
      scroller.addEventListener("scroll", draw, { passive: true });
      new ResizeObserver(() => requestAnimationFrame(draw)).observe(scroller);
      printing.push((on) => { printed = on; draw(); });
      refresh();
    };
    return { setUp, filter, reveal };
  })();

  // ---------------------------------------------------------------- the page

  const sections = () => {
    const counts = { plaintext: states.Plaintext.length, attention: troubled.length, streams: views.length };
    fill(byId("sections").firstElementChild, [...document.querySelectorAll("main > section")].map((section) => {
      const n = counts[section.id];
      return h("li", h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent), n !== undefined && h("span.muted", ` ${digits(n)}`));
    }));
    byId("sections").hidden = false;
  };
  const noStreams = () => h("section", h("h2", "No streams"), h("p.empty",
    "This report has no streams: there is no StreamEncryption in its scope (", foreign(data.scope ?? "not recorded"), ")",
    data.aws && ", and AWS lists no stream in these accounts", ". To encrypt a stream, create a StreamEncryption that specifies it, and write the report "
    + "again. If you expected streams here, check the cluster and the scope above", !data.aws && ", or include AWS’s own list of streams", "."));

  header();
  byId("content").hidden = false;
  if (views.length === 0) {
    byId("content").replaceChildren(noStreams());
  } else {
    for (const build of [summary, distribution, plaintextList, callsList, attentionList, controlsList, transitions, table.setUp, sections]) build();
    for (const [event, on] of [["beforeprint", true], ["afterprint", false]]) {
      window.addEventListener(event, () => { for (const prepare of printing) prepare(on); });
    }
  }
  requestAnimationFrame(() => performance.mark("report-rendered"));
})();
