import { isDomid } from "./domain-table.ts";
import type { DomainRecord } from "./domain-table.ts";
import { domainPath } from "./path.ts";
import { isQuotaName, quotaNames } from "./quota.ts";
import { type Refusal, refuse, refused } from "./refusal.ts";
import { acknowledge, type Handler, numberIn, type Request, stringsOf } from "./request.ts";
import { joinStrings, latinBytes } from "./wire.ts";

/** A handler for the control domain alone: everybody else is refused before anything is looked at. */
const privileged =
  (handler: Handler): Handler =>
  (request) =>
    request.caller.privileged ? handler(request) : refuse("EACCES");

const domidIn = (text: string | undefined): number | undefined => {
  const domid = numberIn(text);
  return domid !== undefined && isDomid(domid) ? domid : undefined;
};

/** The domain of a request that names nothing else. */
const onlyDomid = (request: Request): number | Refusal => {
  const strings = stringsOf(request, 1);
  return refused(strings) ? strings : (domidIn(strings[0]) ?? refuse("EINVAL"));
};

export const getDomainPath: Handler = (request) => {
  const domid = onlyDomid(request);
  return refused(domid) ? domid : joinStrings([domainPath(domid)]);
};

export const isDomainIntroduced: Handler = privileged((request) => {
  const domid = onlyDomid(request);
  if (refused(domid)) return domid;
  const introduced = domid === 0 || request.store.domains.find(domid)?.introduced === true;
  return joinStrings([introduced ? "T" : "F"]);
});

export const introduce: Handler = privileged((request) => {
  const strings = stringsOf(request, 3);
  if (refused(strings)) return strings;
  const [domid, gfn, port] = [domidIn(strings[0]), numberIn(strings[1]), numberIn(strings[2])];
  if (domid === undefined || domid === 0 || gfn === undefined || port === undefined) return refuse("EINVAL");
  return acknowledge(request.control.introduce(domid, gfn, port));
});

export const release: Handler = privileged((request) => {
  const domid = onlyDomid(request);
  if (refused(domid)) return domid;
  return domid === 0 ? refuse("EINVAL") : acknowledge(request.control.release(domid));
});

export const resume: Handler = privileged((request) => {
  const domid = onlyDomid(request);
  return refused(domid) ? domid : acknowledge(request.control.resume(domid));
});

export const setTarget: Handler = privileged((request) => {
  const strings = stringsOf(request, 2);
  if (refused(strings)) return strings;
  const [domid, target] = [domidIn(strings[0]), domidIn(strings[1])];
  if (domid === undefined || target === undefined || domid === 0 || target === 0) return refuse("EINVAL");
  const record = request.store.domains.find(domid);
  const targetRecord = request.store.domains.find(target);
  if (record === undefined || targetRecord === undefined) return refuse("ENOENT");
  record.target = targetRecord;
  return acknowledge(true);
});

export const control: Handler = privileged((request) => {
  const strings = stringsOf(request, 1, 8);
  if (refused(strings)) return strings;
  const answer = request.control.command(strings);
  return refused(answer) ? answer : joinStrings([answer]);
});

/** The domain that an optional first string names: the caller, or for the control domain any. */
const subject = ({ caller, store }: Request, text: string | undefined): DomainRecord | Refusal => {
  if (text === undefined) return caller;
  const domid = domidIn(text);
  if (domid === undefined) return refuse("EINVAL");
  if (!caller.privileged) return refuse("EACCES");
  return store.domains.find(domid) ?? refuse("ENOENT");
};

export const getFeature: Handler = (request) => {
  const strings = stringsOf(request, 0, 1);
  if (refused(strings)) return strings;
  const record = subject(request, strings[0] === "" ? undefined : strings[0]);
  if (refused(record)) return record;
  const bits = record.privileged ? request.control.featuresOffered : record.features;
  return joinStrings([String(bits ?? request.control.featuresOffered)]);
};

/** Takes effect when the domain is introduced: its ring page says what it was offered. */
export const setFeature: Handler = privileged((request) => {
  const strings = stringsOf(request, 2);
  if (refused(strings)) return strings;
  const record = subject(request, strings[0]);
  const bits = numberIn(strings[1]);
  if (refused(record)) return record;
  if (bits === undefined || (bits & ~request.control.featuresOffered) !== 0) return refuse("EINVAL");
  if (record.introduced) return refuse("EBUSY");
  record.features = bits;
  return acknowledge(true);
});

export const getQuota: Handler = (request) => {
  const strings = stringsOf(request, 0, 2);
  if (refused(strings)) return strings;
  const name = strings.at(-1) ?? "";
  if (name === "" && strings.length < 2) return latinBytes(`${quotaNames.join(" ")}\0`);
  if (!isQuotaName(name)) return refuse("EINVAL");
  const { domains } = request.store;
  if (strings.length === 1) return joinStrings([String(domains.defaultLimit(name))]);
  const record = subject(request, strings[0]);
  if (refused(record)) return record;
  return joinStrings([String(record.privileged ? domains.defaultLimit(name) : domains.limit(record, name))]);
};

export const setQuota: Handler = privileged((request) => {
  const strings = stringsOf(request, 2, 3);
  if (refused(strings)) return strings;
  const name = strings.at(-2)!;
  const value = numberIn(strings.at(-1));
  if (!isQuotaName(name) || value === undefined) return refuse("EINVAL");
  if (strings.length === 2) {
    request.store.domains.setDefaultLimit(name, value);
    return acknowledge(true);
  }
  const record = subject(request, strings[0]);
  if (refused(record)) return record;
  record.limits.set(name, value);
  return acknowledge(true);
});
