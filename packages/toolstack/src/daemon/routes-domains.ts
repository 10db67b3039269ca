/**
 * The routes about domains.
 */
import { XenolithError } from "@xenolith/abi";
import type { Guest } from "./guest.ts";
import { streamOf } from "./reader-stream.ts";
import { type Call, jsonRoute, type Route } from "./router.ts";
import * as schemas from "./schemas.ts";
import type { ServiceParts } from "./service-parts.ts";
import { DOM0_NAME, dom0Vcpus, dom0View, domainView, domainViews, vcpusView } from "./views.ts";

/** Routes below `/v1/domains`. */
export const domainRoutes = (parts: ServiceParts): readonly Route[] => [
  {
    method: "GET",
    path: "/v1/domains",
    summary: "All domains, dom0 first, read from the hypervisor now",
    answer: schemas.DomainsView,
    run: () => ({ domains: domainViews(parts.views) }),
  },
  jsonRoute({
    method: "POST",
    path: "/v1/domains",
    summary: "Makes a domain from a configuration or a definition, and lets it run unless it is to be paused",
    request: schemas.CreateRequest,
    answer: schemas.DomainView,
    status: 201,
    run: async ({ body }) => domainView(parts.views, await parts.guests.create(body)),
  }),
  {
    method: "GET",
    path: "/v1/domains/:domain",
    summary: "One domain, by domid or name",
    answer: schemas.DomainView,
    run: (call) =>
      isDom0(call) ? dom0View(parts.views) : domainView(parts.views, parts.guests.find(call.param("domain"))),
  },
  {
    method: "DELETE",
    path: "/v1/domains/:domain",
    summary: "Destroys a domain, or gives up its restart; its definition goes too unless it was made to last",
    run: async (call) => {
      if (parts.guests.cancelRestart(call.param("domain"))) return;
      await parts.guests.destroy(changing(parts, call));
    },
  },
  ...lifeRoutes(parts),
  ...memoryRoutes(parts),
  ...consoleRoutes(parts),
];

const lifeRoutes = (parts: ServiceParts): readonly Route[] => [
  ...(["poweroff", "reboot"] as const).map((how) =>
    jsonRoute({
      method: "POST",
      path: `/v1/domains/:domain/${how === "poweroff" ? "shutdown" : how}`,
      summary: `Asks the guest to ${how === "poweroff" ? "power off" : "reboot"}, or makes it; what follows is its on_${how}`,
      request: schemas.ShutdownRequest,
      answer: schemas.DomainView,
      run: (call) => acting(parts, call, (guest) => parts.actions.end(guest, how, call.body.force === true)),
    }),
  ),
  {
    method: "POST",
    path: "/v1/domains/:domain/pause",
    summary: "Pauses a domain",
    answer: schemas.DomainView,
    run: (call) => acting(parts, call, (guest) => parts.actions.pause(guest)),
  },
  {
    method: "POST",
    path: "/v1/domains/:domain/unpause",
    summary: "Lets a domain go on, or begin",
    answer: schemas.DomainView,
    run: (call) => acting(parts, call, (guest) => parts.actions.unpause(guest)),
  },
  jsonRoute({
    method: "POST",
    path: "/v1/domains/:domain/rename",
    summary: "Gives a domain and its definition another name",
    request: schemas.RenameRequest,
    answer: schemas.DomainView,
    run: (call) => acting(parts, call, (guest) => parts.actions.rename(guest, call.body.name)),
  }),
];

const memoryRoutes = (parts: ServiceParts): readonly Route[] => [
  jsonRoute({
    method: "PUT",
    path: "/v1/domains/:domain/memory/target",
    summary: "Sets the memory that a domain is to have; null: automatic again. Answers before the guest is there",
    request: schemas.MemoryRequest,
    answer: schemas.DomainView,
    run: (call) => acting(parts, call, (guest) => parts.actions.setTarget(guest, call.body.bytes)),
  }),
  jsonRoute({
    method: "PUT",
    path: "/v1/domains/:domain/memory/max",
    summary: "Sets the memory that a domain may have (max_pages)",
    request: schemas.MemoryRequest,
    answer: schemas.DomainView,
    run: (call) => {
      const { bytes } = call.body;
      if (bytes === null) throw new XenolithError("REQUEST_INVALID", "bytes: null is for targets, a limit is a number");
      return acting(parts, call, (guest) => parts.actions.setMax(guest, bytes));
    },
  }),
  {
    method: "GET",
    path: "/v1/domains/:domain/vcpus",
    summary: "The virtual CPUs of a domain",
    answer: schemas.VcpusView,
    run: (call) => (isDom0(call) ? dom0Vcpus() : vcpusView(parts.views, parts.guests.find(call.param("domain")))),
  },
];

const consoleRoutes = (parts: ServiceParts): readonly Route[] => [
  {
    method: "GET",
    path: "/v1/domains/:domain/console",
    summary: "What a domain printed last, at most 64 KiB; with follow=1 also what it prints until it is gone",
    answer: "application/octet-stream",
    run: (call) => {
      const { console } = parts.guests.find(call.param("domain"));
      const headers = { "content-type": "application/octet-stream", "cache-control": "no-store" };
      if (call.query("follow") !== "1") return new Response(new Uint8Array(console.text()), { headers });
      return new Response(
        streamOf(console.follow(), (bytes) => bytes),
        { headers },
      );
    },
  },
  {
    method: "POST",
    path: "/v1/domains/:domain/console",
    summary: "Types the body, at most 64 KiB, to a domain",
    request: "bytes",
    run: (call) => {
      if (!(call.body instanceof Uint8Array)) return;
      parts.guests.find(call.param("domain")).console.type(call.body);
    },
  },
];

const isDom0 = (call: Call<unknown>): boolean => ["0", DOM0_NAME].includes(call.param("domain"));

/** The guest that a request is to change. */
const changing = (parts: ServiceParts, call: Call<unknown>): Guest => {
  if (isDom0(call)) throw new XenolithError("DOMAIN_STATE", "dom0 is the service itself: it is changed by ending it");
  const guest = parts.guests.find(call.param("domain"));
  guest.beginChange(call.expected);
  return guest;
};

const acting = async (
  parts: ServiceParts,
  call: Call<unknown>,
  action: (guest: Guest) => Promise<void>,
): Promise<ReturnType<typeof domainView>> => {
  const guest = changing(parts, call);
  await action(guest);
  return domainView(parts.views, guest);
};
