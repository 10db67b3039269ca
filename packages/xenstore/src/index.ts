export { XENSTORE_PAYLOAD_MAX } from "@xenolith/abi";
