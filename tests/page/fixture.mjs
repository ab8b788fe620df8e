// Facts for the tests of the report page: the same for the same arguments, without a clock or a random source.
//
//   node tests/page/fixture.mjs [STREAMS | small]     prints the facts as JSON; default: 10000
//
// `fleet` has every state, reason and outcome, absent optional fields and hostile strings; `small` is a realistic fleet for the pictures.
import { fileURLToPath } from "node:url";

const GENERATED = Date.parse("2026-03-02T09:00:00Z");
const HOUR = 3600e3;
const DAY = 24 * HOUR;
const before = (ms) => new Date(GENERATED - ms).toISOString().replace(".000Z", "Z");

// The facts as they are after they were written as JSON, which has no undefined values.
const written = (facts) => JSON.parse(JSON.stringify(facts));

// mulberry32
const generator = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let value = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
  return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
};

// A page that treats one of these as HTML or as a script sets `window.hacked`, requests an address, or shows no text.
export const HOSTILE = [
  "</script><script>window.hacked = 1</script>",
  "<img src=\"https://attacker.example/x.png\" onerror=\"window.hacked = 2\">",
  "<!--<script>",
  "\"><svg onload=window.hacked=3>",
  "javascript:window.hacked=4",
  "/*REPORT_DATA*/null /*PAGE_JS*/ /*PAGE_CSS*/",
  "$& $1 $` $' {{constructor}} ${window.hacked=5}",
  "‮txt.exe‬ ⁦isolated⁩",
  "مجرى الطلبات (orders) 123",
  "line\u2028separator\u2029 tab\tnul\\u0000 \ud83d\udd11 e\u0301",
  "__proto__",
  "x".repeat(2000),
];

const controlsOf = (service, state, source) => {
  const result = state === "Encrypted" ? "Passed" : state === "Plaintext" ? "Failed" : "Unknown";
  if (service === "Kinesis") {
    return [
      { id: "Kinesis.1", framework: "AWS Security Hub", result },
      { id: "kinesis-stream-encrypted", framework: "AWS Config", result },
      { id: "kinesis_stream_encrypted_at_rest", framework: "Prowler", result },
    ];
  }
  const other = source !== undefined && source !== "DirectPut";
  return [
    { id: "kinesis-firehose-delivery-stream-encrypted", framework: "AWS Config", result: other ? "NotApplicable" : result,
      ...(other && { note: "The rule evaluates only streams whose source is DirectPut." }) },
    { id: "firehose_stream_encrypted_at_rest", framework: "Prowler", result: other ? "Unknown" : result,
      ...(other && { note: "Prowler evaluates the encryption of the source." }) },
  ];
};

const keyArn = (account, region, digit) => {
  const of = (length) => String(digit).repeat(length).slice(0, length);
  return `arn:aws:kms:${region}:${account}:key/${of(8)}-${of(4)}-${of(4)}-${of(4)}-${of(12)}`;
};
const keyText = (key, service) => (key === "AWS_OWNED_CMK" ? (service === "Kinesis" ? "the AWS managed key alias/aws/kinesis" : "the AWS-owned key") : key.slice(key.lastIndexOf(":") + 1));

export const fleet = (count, { seed = 7, hostile = true } = {}) => {
  const random = generator(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const accounts = ["111122223333", "444455556666", "777788889999", "123456789012"];
  const regions = ["eu-west-1", "us-east-1", "ap-southeast-2"];
  const words = ["orders", "clicks", "audit", "payments", "telemetry", "sessions", "invoices", "sensors", "logs", "events"];
  const streams = Array.from({ length: count }, (_, index) => {
    const service = random() < 0.5 ? "Firehose" : "Kinesis";
    const account = pick(accounts);
    const region = pick(regions);
    // Every hostile string is in some stream: the first ones, one after another.
    const evil = hostile && index < HOSTILE.length * 2 ? HOSTILE[index % HOSTILE.length] : undefined;
    const name = evil ?? (index === 40 && hostile ? "a".repeat(128) : `${pick(words)}-${pick(words)}-${index}`);
    const dice = random();
    const state = dice < 0.82 ? "Encrypted" : dice < 0.9 ? "Plaintext" : dice < 0.93 ? "Changing" : dice < 0.97 && service === "Firehose" ? "NotEncryptable" : "Unknown";
    const source = service === "Firehose" ? (state === "NotEncryptable" ? "KinesisStreamAsSource" : "DirectPut") : undefined;
    const key = random() < 0.4 ? "AWS_OWNED_CMK" : keyArn(account, region, 1 + Math.floor(random() * 9));
    const since = before(Math.floor(random() * 400 * DAY));
    const stream = {
      stream: service === "Firehose" ? `arn:aws:firehose:${region}:${account}:deliverystream/${name}` : `arn:aws:kinesis:${region}:${account}:stream/${name}`,
      service, account, region, name, state, source,
      encryptionStatus: { Encrypted: "ENABLED", Changing: "ENABLING" }[state] ?? "DISABLED",
      controls: controlsOf(service, state, source),
      ...(state === "Encrypted" && { activeKey: key, encryptedSinceTime: since }),
      ...(state === "Plaintext" && random() < 0.9 && { plaintextSinceTime: since }),
    };
    if (evil) stream.controls[0].note = evil;
    if (random() < 0.12) return { ...stream, namespace: "", resource: "", managed: false, ready: "Unknown", stalled: false, suspended: false };
    const used = random() < 0.15 ? 1 + Math.floor(random() * 20) : 0;
    const suspended = random() < 0.02;
    const reason = suspended ? "Suspended" : { Encrypted: "Encrypted", Plaintext: pick(["KeyDisabled", "EnablingFailed", "CallLimitReached", "Drifted", "OutcomeUnknown"]), Changing: "Enabling", NotEncryptable: "SourceNotDirectPut", Unknown: "AwsThrottled" }[state];
    const message = evil ?? { Encrypted: `Records are encrypted with ${keyText(key, service)}.`, Plaintext: `${keyText(key, service)} is disabled. Enable it, or set another key in spec.key. Records are in plaintext.`,
      Changing: `AWS is enabling encryption with ${keyText(key, service)}. Records are still in plaintext.`, NotEncryptable: "Only Firehose streams whose source is DirectPut can be encrypted.",
      Unknown: "AWS is throttling requests; the operator backs off and retries." }[state];
    return {
      // A suspended resource does not show that it manages its stream.
      ...stream, namespace: `team-${Math.floor(random() * 60)}`, resource: evil ? `odd-${index}` : name.slice(0, 63), managed: suspended ? null : true, desiredKey: key,
      ready: state === "Encrypted" ? "True" : state === "Unknown" ? "Unknown" : "False", stalled: state === "NotEncryptable", suspended, reason, message,
      ...(state === "Encrypted" && random() < 0.01 && { activeKeyUnusableSinceTime: before(Math.floor(random() * 5 * DAY)) }),
      lastDescribeTime: before(Math.floor(random() * DAY)),
      ...(random() < 0.3 && { verifiedTime: before(Math.floor(random() * 30 * DAY)) }),
      ...(state === "Plaintext" && { nextAttemptTime: before(-Math.floor(random() * 6 * HOUR)) }),
      callsUsed: used, callsLimit: 20, ...(used > 0 && { callsNextAvailableTime: before(-Math.floor(random() * 24 * HOUR)) }),
      calls: Array.from({ length: used }, (_, call) => {
        const outcome = pick(["Accepted", "Accepted", "Refused", "Unknown", "Pending"]);
        return { time: before(Math.floor(((used - call) / (used + 1)) * 24 * HOUR)), action: random() < 0.9 ? "Start" : "Stop", key, outcome,
          ...(outcome === "Refused" && { code: evil ?? "LimitExceededException" }), correction: random() < 0.2 };
      }),
      plaintextPeriods: used > 0 ? [{ fromTime: before(Math.floor((20 + random() * 200) * HOUR)), ...(state === "Encrypted" && { toTime: before(Math.floor(random() * 20 * HOUR)) }) }] : [],
    };
  });
  return written({
    generatedTime: before(0), version: "0.1.0", server: hostile && count > 1 ? HOSTILE[0] : "https://kubernetes.example.com:6443", scope: "all namespaces",
    aws: true, accounts: accounts.flatMap((account) => regions.map((region) => `${account} in ${region}`)), streams,
  });
};

// name, service, namespace, state, key digit (0: AWS-owned), days in the state, further values
const FLEET = [
  ["orders", "Firehose", "shop", "Encrypted", 1, 212], ["payments", "Firehose", "shop", "Encrypted", 2, 0.4], ["carts", "Kinesis", "shop", "Encrypted", 0, 88],
  ["refunds", "Firehose", "shop", "Encrypted", 1, 64], ["clicks", "Kinesis", "web", "Encrypted", 0, 143], ["sessions", "Kinesis", "web", "Encrypted", 3, 31],
  ["page-views", "Kinesis", "web", "Encrypted", 3, 31], ["experiments", "Kinesis", "web", "Plaintext", 3, 12.3, { reason: "KeyDisabled" }],
  ["telemetry", "Kinesis", "platform", "Encrypted", 0, 190], ["access-logs", "Firehose", "platform", "Encrypted", 1, 170], ["audit", "Firehose", "platform", "Plaintext", 5, 0.2, { reason: "EnablingFailed" }],
  ["alerts", "Firehose", "platform", "Encrypted", 1, 22, { suspended: true }], ["metrics", "Firehose", "platform", "Encrypted", 1, 301],
  ["replica", "Firehose", "data", "NotEncryptable", 0, 0], ["invoices", "Firehose", "billing", "Encrypted", 2, 95], ["ledger-events", "Kinesis", "billing", "Encrypted", 2, 95],
  ["tax", "Firehose", "billing", "Changing", 2, 0], ["statements", "Firehose", "billing", "Encrypted", 4, 120, { unusable: 0.6 }],
  ["sensors", "Kinesis", "iot", "Encrypted", 0, 77], ["firmware", "Firehose", "iot", "Encrypted", 1, 9], ["gateways", "Kinesis", "iot", "Unknown", 0, 0],
  ["positions", "Kinesis", "iot", "Encrypted", 0, 1.6], ["legacy-import", "Firehose", undefined, "Plaintext", 0, undefined], ["sandbox", "Kinesis", undefined, "Encrypted", 0, 40],
];
export const small = () => {
  const streams = FLEET.map(([name, service, namespace, state, digit, days, more = {}]) => {
    const account = ["billing", "shop"].includes(namespace) ? "444455556666" : "111122223333";
    const region = namespace === "iot" ? "us-east-1" : "eu-west-1";
    const key = digit === 0 ? "AWS_OWNED_CMK" : keyArn(account, region, digit);
    const words = keyText(key, service);
    const source = service === "Firehose" ? (state === "NotEncryptable" ? "KinesisStreamAsSource" : "DirectPut") : undefined;
    const stream = {
      stream: service === "Firehose" ? `arn:aws:firehose:${region}:${account}:deliverystream/${name}` : `arn:aws:kinesis:${region}:${account}:stream/${name}`,
      service, account, region, name, state, source, encryptionStatus: { Encrypted: "ENABLED", Changing: "ENABLING" }[state] ?? (more.reason === "EnablingFailed" ? "ENABLING_FAILED" : "DISABLED"),
      ...(state === "Encrypted" && { activeKey: key, ...(days !== undefined && { encryptedSinceTime: before(days * DAY) }) }),
      ...(state === "Plaintext" && days !== undefined && { plaintextSinceTime: before(days * DAY) }),
      controls: controlsOf(service, state, source),
    };
    if (namespace === undefined) return { ...stream, managed: false };
    const failing = `AWS could not encrypt with ${words}: KMS_ACCESS_DENIED. Records are in plaintext. Fix the key or its policy, then change the annotation streamencryption.dev/retry to retry immediately.`;
    const message = more.suspended ? "It is suspended by spec.suspend. Records were encrypted when the stream was last described." : more.unusable ? `${words} is the active key and is disabled. The stream loses its records.`
      : { Encrypted: `Records are encrypted with ${words}.`, Plaintext: more.reason === "KeyDisabled" ? `${words} is disabled. Enable it, or set another key in spec.key. Records are in plaintext.` : failing,
        Changing: `AWS is enabling encryption with ${words}. Records are still in plaintext.`, NotEncryptable: "The source of the stream is KinesisStreamAsSource. Only Firehose streams whose source is DirectPut can be encrypted.",
        Unknown: "The operator is not allowed kinesis:DescribeStreamSummary on the stream." }[state];
    const reason = more.suspended ? "Suspended" : more.unusable ? "KeyDisabled" : more.reason ?? { Encrypted: "Encrypted", Changing: "Enabling", NotEncryptable: "SourceNotDirectPut", Unknown: "AccessDenied" }[state];
    const call = (hours, action, outcome, rest) => ({ time: before(hours * HOUR), action, key, outcome, correction: false, ...rest });
    const calls = {
      payments: [call(9.7, "Start", "Accepted", { correction: true })],
      positions: [call(20, "Start", "Unknown"), call(19.2, "Start", "Accepted")],
      audit: [call(23.5, "Start", "Accepted"), call(22.4, "Start", "Accepted"), call(21, "Start", "Refused", { code: "KMSAccessDeniedException" }), call(19, "Start", "Accepted"), call(17, "Start", "Accepted"),
        ...[15, 13, 11.5, 10, 8.6, 7.4, 6.2, 5.4, 4.9, 3.1, 2.2, 1.4].map((hours) => call(hours, "Start", hours === 10 ? "Refused" : "Accepted", hours === 10 ? { code: "LimitExceededException" } : {}))],
      tax: [call(0.05, "Start", "Pending")],
      firmware: [call(16, "Stop", "Accepted"), call(14.5, "Start", "Accepted", { correction: true }), call(5.2, "Stop", "Refused", { code: "ResourceInUseException" })],
      experiments: [call(12.2, "Start", "Refused", { code: "KMSDisabledException" })],
    }[name] ?? [];
    const periods = {
      payments: [{ fromTime: before(13 * HOUR), toTime: before(9.6 * HOUR) }], positions: [{ fromTime: before(9 * DAY), toTime: before(19.1 * HOUR) }],
      audit: [{ fromTime: before(4.8 * HOUR) }], firmware: [{ fromTime: before(15.9 * HOUR), toTime: before(14.4 * HOUR) }], experiments: [{ fromTime: before(12.3 * DAY) }],
      orders: [{ fromTime: before(220 * DAY), toTime: before(212 * DAY) }], tax: [{ fromTime: before(2 * DAY) }],
    }[name];
    return {
      ...stream, namespace, resource: name, managed: true, desiredKey: key, ready: state === "Encrypted" && !more.unusable ? "True" : "False", stalled: state === "NotEncryptable", suspended: more.suspended ?? false, reason, message,
      lastDescribeTime: before(4 * 60e3 + name.length * 31e3), ...(["orders", "payments", "invoices"].includes(name) && { verifiedTime: before(Math.min(days, 20) * DAY - 60e3) }),
      ...(more.unusable && { activeKeyUnusableSinceTime: before(more.unusable * DAY) }), ...(more.reason === "EnablingFailed" && { nextAttemptTime: before(-2.1 * HOUR) }),
      callsUsed: calls.length, callsLimit: 20, ...(calls.length > 0 && { callsNextAvailableTime: new Date(Date.parse(calls[0].time) + 24 * HOUR + 31 * 60e3).toISOString().replace(".000Z", "Z") }),
      calls, ...(periods && { plaintextPeriods: periods }),
    };
  });
  return written({ generatedTime: before(0), version: "0.1.0", server: "https://kubernetes.example.com:6443", scope: "all namespaces", aws: true,
    accounts: ["111122223333 in eu-west-1", "111122223333 in us-east-1", "444455556666 in eu-west-1"], streams });
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const wanted = process.argv[2] ?? "10000";
  process.stdout.write(`${JSON.stringify(wanted === "small" ? small() : fleet(Number(wanted)))}\n`);
}
