/**
 * Where a daemon answers: at its Unix socket, or over TCP with TLS and a token. A place says how a question gets there, and
 * what to do when it does not.
 */
import http from "node:http";

/** What every question has, wherever it goes. */
export type QuestionOptions = Pick<http.RequestOptions, "method" | "path" | "signal"> & {
  readonly headers: Readonly<Record<string, string | number>>;
};

/** Begins a question, whose content is to follow; `answered` is called when the head of the answer is there. */
export type Begin = (options: QuestionOptions, answered: (message: http.IncomingMessage) => void) => http.ClientRequest;

/** One place. */
export interface DaemonPlace {
  /** The path of the socket, or the URL: as people call it. */
  readonly name: string;
  /** What begins a question. */
  open(): Promise<Begin>;
  /** What a failure with this code of Node's means here, with the remedy; undefined: nothing that is known. */
  explain(code: string, reason: string): string | undefined;
  /** What to do when the daemon wants a token, or another one. */
  readonly tokenRemedy: string;
}

/** A daemon of this machine, at the path of its Unix socket. */
export const atSocket = (socketPath: string): DaemonPlace => ({
  name: socketPath,
  open: () => Promise.resolve((options, answered) => http.request({ ...options, socketPath, agent: false }, answered)),
  explain(code) {
    if (code === "ENOENT" || code === "ECONNREFUSED")
      return `no daemon answers at ${socketPath}: start one with \`xl daemon\`, or name its socket with --socket PATH`;
    if (code === "EACCES" || code === "EPERM") return `${socketPath} belongs to another user: call xl as that user`;
    return undefined;
  },
  tokenRemedy: "",
});

/** What TCP with TLS needs besides the address. */
export interface SecureOptions {
  /** `https://HOST:PORT`. */
  readonly url: URL;
  /** What the daemon was given with `--token-file`. */
  readonly token: string;
  /** Certificates that are trusted, in PEM, in place of those that Node trusts; undefined: those. */
  readonly authorities?: string | undefined;
}

const UNREACHED = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"];
/** OpenSSL's names of why a certificate is not believed, as far as another authority would mend it. */
const UNTRUSTED = [
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_SIGNATURE_FAILURE",
];

/** A daemon with `--listen`. TLS 1.2 at least; the certificate must be trusted and be for the host of the URL. */
export const atUrl = ({ url, token, authorities }: SecureOptions): DaemonPlace => {
  const name = url.origin;
  return {
    name,
    async open() {
      // Loaded here, so that those who ask at a socket need not wait for it.
      const { request } = await import("node:https");
      const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
      const port = url.port === "" ? 443 : Number(url.port);
      const trust = authorities === undefined ? {} : { ca: authorities };
      const place = { host, port, agent: false, minVersion: "TLSv1.2", ...trust } as const;
      return (options, answered) => {
        const headers = { ...options.headers, authorization: `Bearer ${token}` };
        return request({ ...options, ...place, headers }, answered);
      };
    },
    explain(code, reason) {
      if (UNREACHED.includes(code))
        return `no daemon answers at ${name} (${reason}): start one there with \`xl daemon --listen\`, or mend the address`;
      if (UNTRUSTED.includes(code))
        return `the certificate of ${name} is not trusted (${reason}): name its authority, or itself, with --ca-file FILE`;
      if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
        return `the certificate of ${name} is for another host (${reason}): call it as its certificate does`;
      if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID")
        return `the certificate of ${name} is not valid now (${reason}): renew it, or set the clock`;
      if (code === "EPROTO" || code.startsWith("ERR_SSL_"))
        return `${name} does not speak TLS as xl does (${reason}): is it the port of \`xl daemon --listen\`?`;
      return undefined;
    },
    tokenRemedy: "--token-file must be the file that the daemon was given",
  };
};
