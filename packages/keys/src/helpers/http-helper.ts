import { type Built, failed, missing, PAYLOAD_BYTES_MAX, rejected, type Work } from "./helper.ts";

const TIMEOUT_MS = 10_000;

/** A field of a JSON answer, as data.data.password. */
const pick = (text: string, field: string): string => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw failed("the answer is not JSON");
  }
  for (const name of field.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) throw missing(`no field ${field}`);
    value = Object.entries(value).find(([each]) => each === name)?.[1];
  }
  if (typeof value !== "string") throw failed(`field ${field} is not a text`);
  return value;
};

/** The body, as far as a key can hold it. */
const bodyOf = async (response: Response): Promise<Buffer> => {
  const pieces: Uint8Array[] = [];
  let length = 0;
  // Node's types leave open what the body yields.
  for await (const piece of response.body ?? []) {
    const bytes: Uint8Array = piece;
    length += bytes.length;
    if (length > PAYLOAD_BYTES_MAX * 2) throw failed(`the answer is longer than ${PAYLOAD_BYTES_MAX * 2} bytes`);
    pieces.push(bytes);
  }
  return Buffer.concat(pieces);
};

const lifetime = (response: Response): number | undefined => {
  const [, seconds] = /max-age=(\d+)/.exec(response.headers.get("cache-control") ?? "") ?? [];
  return seconds === undefined ? undefined : Number(seconds);
};

/**
 * Gets a secret from a store like Vault: `--url` with {name} in it, `--token TYPE:DESCRIPTION` names the requester's key
 * that holds the token, so that everybody gets what their own token allows. `--header` is the token's (default
 * "authorization", as a bearer), `--field` picks a text out of a JSON answer; max-age of Cache-Control limits the key.
 */
export const fetchSecret = async ({ name, options, requesterKey }: Work): Promise<Built> => {
  const { url = "", token: tokenKey = "", header = "authorization", field } = options;
  if (!url.includes("{name}") || tokenKey === "") throw failed("--url with {name}, and --token, are needed");
  const token = (await requesterKey(tokenKey)).toString("utf8").trim();
  const response = await fetch(url.replace("{name}", encodeURIComponent(name)), {
    headers: { [header]: header === "authorization" ? `Bearer ${token}` : token },
    // The token goes where the rule says, and nowhere else.
    redirect: "error",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch((cause: unknown) => {
    throw failed("the store does not answer", cause);
  });
  if (response.status === 404) throw missing("the store has no such secret");
  if (response.status === 401 || response.status === 403) throw rejected("the store refuses the token");
  if (!response.ok) throw failed(`the store answers ${response.status}`);
  const body = await bodyOf(response);
  const payload = field === undefined ? body : Buffer.from(pick(body.toString("utf8"), field));
  return { payload, seconds: lifetime(response) };
};
