// P-256 for sections 1, 2, 5 and 6 of the specification. Points are node's (OpenSSL); scalars are BigInt, which is
// variable time: this is a test tool, and its keys are worthless. Do not copy it into a product.

import { ECDH, createECDH } from 'node:crypto'
import { Refusal, demand, hkdf } from './encodings.js'

export const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

const os2ip = (bytes) => BigInt('0x' + bytes.toString('hex'))
const scalarBytes = (k) => Buffer.from(k.toString(16).padStart(64, '0'), 'hex')

/** reduce: OS2IP(wide) mod n. Section 1. */
export const reduce = (wide) => scalarBytes(os2ip(wide) % ORDER)

/** scalar(ikm, info) of section 1. */
export const scalar = (ikm, info) => reduce(hkdf(ikm, null, info, 48))

export const isZero = (k) => k.every((b) => b === 0)

/** checked refuses what is not a scalar in 1..n-1. */
export const checked = (k) => {
  demand(k.length === 32 && !isZero(k) && os2ip(k) < ORDER, 'key', 'scalar')
  return k
}

/** quotient: a * d^-1 mod n. Section 6, point 2. */
export const quotient = (a, d) => {
  checked(a)
  let base = os2ip(checked(d))
  let inverse = 1n
  for (let e = ORDER - 2n; e > 0n; e >>= 1n) {
    if (e & 1n) inverse = (inverse * base) % ORDER
    base = (base * base) % ORDER
  }
  return scalarBytes((os2ip(a) * inverse) % ORDER)
}

const holder = (k) => {
  const e = createECDH('prime256v1')
  e.setPrivateKey(checked(k))
  return e
}

/** kG, compressed. */
export const multiplyBase = (k) => holder(k).getPublicKey(null, 'compressed')

/** decompress reads a compressed point and nothing else (SEC 1 section 2.3.4); gives it uncompressed. */
export const decompress = (point, kind = 'point') => {
  demand(point.length === 33 && (point[0] === 2 || point[0] === 3), kind, 'not a compressed point')
  try {
    return ECDH.convertKey(point, 'prime256v1', undefined, undefined, 'uncompressed')
  } catch {
    throw new Refusal(kind, 'not on the curve')
  }
}

/** x(kP) for a compressed point P. */
export const multiplyX = (k, point, kind) => holder(k).computeSecret(decompress(point, kind))

/** lift(x) of section 6: the point with that x and even y. */
export const lift = (x) => Buffer.concat([Buffer.from([2]), x])

const HEAD = Buffer.from('3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420', 'hex')

/** PKCS#8 (RFC 5208) around ECPrivateKey (RFC 5915), named curve, no public key: 67 bytes. Section 6, point 3. */
export const toPKCS8 = (k) => Buffer.concat([HEAD, checked(k)])

/** fromPKCS8 reads this one form. Section 6, point 3. */
export const fromPKCS8 = (bytes) => {
  demand(bytes.length === 67 && bytes.subarray(0, 35).equals(HEAD), 'key', 'PKCS#8')
  return checked(bytes.subarray(35))
}
