// Section 1 of the specification, "Encodings": bytes, numbers, names and the derivation of keys.

import { createHash, hkdfSync, timingSafeEqual } from 'node:crypto'

/**
 * A Refusal says that bytes are not what they should be. Its kind is one of those of tests/vectors/vectors.go:
 * open, key, point, too_large, malformed, signature, proof, pin.
 */
export class Refusal extends Error {
  /** @param {string} kind @param {string} [what] */
  constructor(kind, what) {
    super(what ? `${kind}: ${what}` : kind)
    this.kind = kind
  }
}

/** refuse throws a Refusal unless the condition holds. */
export const demand = (condition, kind, what) => {
  if (!condition) throw new Refusal(kind, what)
}

/** as does work and gives every Refusal in it another kind: where all failures must look alike. */
export const as = (kind, work) => {
  try {
    return work()
  } catch (e) {
    if (e instanceof Refusal) throw new Refusal(kind, e.message)
    throw e
  }
}

export const MAX_U64 = (1n << 64n) - 1n

/** u64 of section 1: big-endian, 8 bytes. @param {bigint} n */
export const u64 = (n) => {
  const b = Buffer.alloc(8)
  b.writeBigUInt64BE(n)
  return b
}

const u16 = (n) => {
  demand(n <= 0xffff, 'malformed', 'a field of more than 65,535 bytes')
  const b = Buffer.alloc(2)
  b.writeUInt16BE(n)
  return b
}

const bytesOf = (field) => (typeof field === 'bigint' ? u64(field) : Buffer.from(field))

/**
 * encode is Encode(use, f1, f2, ...) of section 1.
 * @param {string} use
 * @param {...(bigint|string|Uint8Array)} fields a bigint is a u64, a string its UTF-8
 */
export const encode = (use, ...fields) =>
  Buffer.concat(
    [`sallyport/v1/${use}`, ...fields].flatMap((field) => {
      const b = bytesOf(field)
      return [u16(b.length), b]
    })
  )

/** decode is the inverse of encode for a known use and number of fields; anything else is malformed. Section 1. */
export const decode = (use, count, bytes) => {
  const parts = []
  for (let at = 0; at < bytes.length; ) {
    demand(at + 2 <= bytes.length, 'malformed', 'cut')
    const end = at + 2 + bytes.readUInt16BE(at)
    demand(end <= bytes.length, 'malformed', 'cut')
    parts.push(bytes.subarray(at + 2, end))
    at = end
  }
  demand(parts.length === count + 1, 'malformed', 'number of fields')
  demand(parts[0].equals(Buffer.from(`sallyport/v1/${use}`)), 'malformed', 'label')
  return parts.slice(1)
}

/** HKDF(ikm, salt, info, L) of section 1; an absent salt is empty. */
export const hkdf = (ikm, salt, info, size) => Buffer.from(hkdfSync('sha256', ikm, salt ?? Buffer.alloc(0), info, size))

export const sha256 = (...parts) => {
  const h = createHash('sha256')
  for (const part of parts) h.update(part)
  return h.digest()
}

/** equal compares in constant time. */
export const equal = (a, b) => a.length === b.length && timingSafeEqual(a, b)

/** hex reads exactly `size` bytes of lower-case hexadecimal: ids and hashes (32), nonces (16). Section 1. */
export const hex = (text, size) => {
  demand(typeof text === 'string' && text.length === 2 * size && /^[0-9a-f]*$/.test(text), 'malformed', 'hexadecimal')
  return Buffer.from(text, 'hex')
}

/** base64 of RFC 4648 section 4 with padding, and no other spelling of the same bytes. Section 1. */
export const base64 = (text) => {
  demand(typeof text === 'string', 'malformed', 'base64')
  const bytes = Buffer.from(text, 'base64')
  demand(bytes.toString('base64') === text, 'malformed', 'base64')
  return bytes
}

/** Field names of section 1. */
export const fieldName = (text) => {
  demand(/^[a-z0-9._/-]{1,64}$/.test(text), 'malformed', 'field name')
  return text
}

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/

/** visible refuses text with characters that nobody sees. Section 1. */
export const visible = (text) => demand(!INVISIBLE.test(text), 'malformed', 'text')

/** What `name` and `purpose` may be, section 1; a purpose has at least one byte. */
export const visibleText = (text, least) => {
  const size = Buffer.byteLength(text)
  demand(size >= least && size <= 200, 'malformed', 'text')
  visible(text)
  return text
}
