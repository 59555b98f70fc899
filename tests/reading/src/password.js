// Section 14 of the specification, "Key server": passwords and recovery sheets. Numbers are BigInt, which is variable time: this is a test tool.

import { createCipheriv } from 'node:crypto'
import { argon2id } from '@noble/hashes/argon2'
import { demand, encode, hkdf, sha256 } from './encodings.js'
import { decompress, lift, multiplyX, quotient, reduce } from './p256.js'

const P = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
const A = P - 3n
const B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn
const Z = P - 10n

const mod = (x) => ((x % P) + P) % P
const power = (base, e) => {
  let out = 1n
  for (base = mod(base); e > 0n; e >>= 1n) {
    if (e & 1n) out = (out * base) % P
    base = (base * base) % P
  }
  return out
}
const invert = (x) => power(x, P - 2n)
const number = (bytes) => BigInt('0x' + bytes.toString('hex'))
const bytesOf = (x) => Buffer.from(x.toString(16).padStart(64, '0'), 'hex')

/** expand_message_xmd with SHA-256, RFC 9380 section 5.3.1. */
const expand = (message, domain, size) => {
  const tail = Buffer.concat([domain, Buffer.from([domain.length])])
  const first = sha256(Buffer.concat([Buffer.alloc(64), message, Buffer.from([size >> 8, size & 255, 0]), tail]))
  const out = []
  let block = Buffer.alloc(32)
  for (let i = 1; out.length * 32 < size; i++) {
    const mixed = i === 1 ? first : Buffer.from(first.map((v, j) => v ^ block[j]))
    block = sha256(Buffer.concat([mixed, Buffer.from([i]), tail]))
    out.push(block)
  }
  return Buffer.concat(out).subarray(0, size)
}

/** map_to_curve_simple_swu, section 6.6.2, with the square root of section I.1: P is 3 modulo 4. */
const map = (u) => {
  const tv = mod(Z * u * u)
  const denominator = mod(tv * tv + tv)
  let x = denominator === 0n ? mod(B * invert(Z * A)) : mod(mod(-B) * invert(A) * (1n + invert(denominator)))
  const right = (v) => mod(v * v * v + A * v + B)
  let y = power(right(x), (P + 1n) / 4n)
  if (mod(y * y) !== right(x)) {
    x = mod(tv * x)
    y = power(right(x), (P + 1n) / 4n)
  }
  if ((y & 1n) !== (u & 1n)) y = mod(-y)
  return [x, y]
}

/** The sum of two points that are neither the same nor opposite, as hashes are not. */
const add = ([x1, y1], [x2, y2]) => {
  const slope = mod(mod(y2 - y1) * invert(x2 - x1))
  const x = mod(slope * slope - x1 - x2)
  return [x, mod(slope * (x1 - x) - y1)]
}

/** hash_to_curve, suite P256_XMD:SHA-256_SSWU_RO_; uncompressed. */
export const hashToCurve = (message, domain) => {
  const wide = expand(message, domain, 96)
  const [x, y] = add(map(mod(number(wide.subarray(0, 48)))), map(mod(number(wide.subarray(48)))))
  return Buffer.concat([Buffer.from([4]), bytesOf(x), bytesOf(y)])
}

const compressed = (p) => Buffer.concat([Buffer.from([2 | (p[64] & 1)]), p.subarray(1, 33)])

/** blind: P, r and what the key server is sent. */
export const blind = (account, password, random) => {
  demand(password.length >= 1 && password.length <= 1024, 'malformed', 'password')
  const point = compressed(hashToCurve(encode('password-point', account, password), Buffer.from('sallyport/v1/password-point')))
  const r = reduce(random)
  return { point, r, blinded: multiplyX(r, point) }
}

/** evaluate is the token's part. */
export const evaluate = (k, blinded) => multiplyX(k, lift(blinded))

const verifier = (account, proof) => sha256(encode('password-verifier', account, proof))

/** finish takes the answer. */
export const finish = (account, password, r, answer, salt) => {
  decompress(lift(answer))
  const output = multiplyX(quotient(bytesOf(1n), r), lift(answer))
  const soft = hkdf(output, null, encode('password-output', account, password), 32)
  const hard = Buffer.from(argon2id(soft, salt, { t: 3, m: 65536, p: 4, dkLen: 32, version: 0x13 }))
  const proof = hkdf(hard, null, encode('password-proof', account), 32)
  return { output, soft, hard, key: hkdf(hard, null, encode('password-key', account), 32), proof, verifier: verifier(account, proof) }
}

/** wrap seals the profile's key. */
export const wrap = (key, account, secret, nonce) => {
  const c = createCipheriv('aes-256-gcm', key, nonce)
  c.setAAD(encode('password-wrapped', account))
  return Buffer.concat([nonce, c.update(secret), c.final(), c.getAuthTag()])
}

const LETTERS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const write = (bytes) => {
  let bits = ''
  for (const b of bytes) bits += b.toString(2).padStart(8, '0')
  return bits.match(/.{5}/g).map((five) => LETTERS[parseInt(five, 2)]).join('')
}
const check = (kit) => write(sha256(encode('kit-check', kit))).slice(0, 4)

/** kit reads the code of a sheet as a person types it. */
export const kit = (text) => {
  const clean = text.toUpperCase().replace(/[-\s]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1').replace(/U/g, 'V')
  demand(clean.length === 36 && [...clean].every((c) => LETTERS.includes(c)), 'malformed', 'code')
  const bits = [...clean.slice(0, 32)].map((c) => LETTERS.indexOf(c).toString(2).padStart(5, '0')).join('')
  const bytes = Buffer.from(bits.match(/.{8}/g).map((eight) => parseInt(eight, 2)))
  demand(check(bytes) === clean.slice(32), 'malformed', 'checksum')
  return bytes
}

/** sheet is the code as it stands on the sheet. */
export const sheet = (bytes) => (write(bytes) + check(bytes)).match(/.{4}/g).join('-')

/** kitKeys are the sheet's two keys. */
export const kitKeys = (account, bytes) => {
  const proof = hkdf(bytes, null, encode('kit-proof', account), 32)
  return { key: hkdf(bytes, null, encode('kit-key', account), 32), proof, verifier: verifier(account, proof) }
}
