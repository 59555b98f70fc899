// X-Wing (draft-connolly-cfrg-xwing-kem) and HPKE (RFC 9180) with it, which sections 2, 6, 7 and 8 of the specification use.
// ML-KEM-768 is that of @noble/post-quantum; X25519, SHA-3 and AES are node's.

import { createCipheriv, createDecipheriv, createHash, createHmac, createPrivateKey, createPublicKey, diffieHellman, randomBytes } from 'node:crypto'
import { ml_kem768 } from '@noble/post-quantum/ml-kem'
import { Refusal, demand } from './encodings.js'

export const PUBLIC_SIZE = 1216
export const CT_SIZE = 1120
const LABEL = Buffer.from('\\.//^\\')

const pkcs8 = (raw) => createPrivateKey({ key: Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), raw]), format: 'der', type: 'pkcs8' })
const spki = (raw) => createPublicKey({ key: Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), raw]), format: 'der', type: 'spki' })

const x25519Public = (secret) => createPublicKey(pkcs8(secret)).export({ format: 'der', type: 'spki' }).subarray(-32)

const x25519 = (secret, point) => {
  const privateKey = pkcs8(secret)
  const publicKey = spki(point)
  try {
    return diffieHellman({ privateKey, publicKey })
  } catch {
    return Buffer.alloc(32) // OpenSSL refuses the shared secret of zeroes, the draft does not
  }
}

const sha3 = (...parts) => createHash('sha3-256').update(Buffer.concat(parts)).digest()

const combine = (ssM, ssX, ctX, pkX) => sha3(ssM, ssX, ctX, pkX, LABEL)

const expand = (seed) => {
  const wide = createHash('shake256', { outputLength: 96 }).update(seed).digest()
  const { secretKey, publicKey } = ml_kem768.keygen(wide.subarray(0, 64))
  const skX = wide.subarray(64)
  return { skM: secretKey, skX, pkX: x25519Public(skX), pkM: Buffer.from(publicKey) }
}

/** The public key of a 32-byte seed: section 5.2 of the draft, and section 2 of the specification. */
export const publicKey = (seed) => {
  const { pkM, pkX } = expand(seed)
  return Buffer.concat([pkM, pkX])
}

/** encapsulate: section 5.4 of the draft. `random` (64 bytes) is its eseed. */
export const encapsulate = (pk, random = randomBytes(64)) => {
  demand(pk.length === PUBLIC_SIZE, 'key', 'X-Wing key size')
  const pkM = pk.subarray(0, 1184)
  const pkX = pk.subarray(1184)
  // FIPS 203 section 7.2, the modulus check: @noble/post-quantum 0.4.1 has one that lets everything pass.
  for (let i = 0; i < 1152; i += 3) {
    const low = pkM[i] | ((pkM[i + 1] & 15) << 8)
    const high = (pkM[i + 1] >> 4) | (pkM[i + 2] << 4)
    demand(low < 3329 && high < 3329, 'key', 'coefficient of q or more')
  }
  const m = ml_kem768.encapsulate(pkM, random.subarray(0, 32))
  const ekX = random.subarray(32, 64)
  const ctX = x25519Public(ekX)
  const ssX = x25519(ekX, pkX)
  return { ct: Buffer.concat([m.cipherText, ctX]), ss: combine(m.sharedSecret, ssX, ctX, pkX) }
}

/** decapsulate: section 5.5 of the draft. */
export const decapsulate = (seed, ct) => {
  demand(ct.length === CT_SIZE, 'open', 'X-Wing ciphertext size')
  const { skM, skX, pkX } = expand(seed)
  const ctX = ct.subarray(1088)
  return combine(ml_kem768.decapsulate(ct.subarray(0, 1088), skM), x25519(skX, ctX), ctX, pkX)
}

/** AES-256-GCM with the tag behind the ciphertext. */
export const gcmSeal = (key, nonce, plaintext, aad = Buffer.alloc(0)) => {
  const c = createCipheriv('aes-256-gcm', key, nonce)
  c.setAAD(aad)
  return Buffer.concat([c.update(plaintext), c.final(), c.getAuthTag()])
}

export const gcmOpen = (key, nonce, sealed, aad = Buffer.alloc(0)) => {
  demand(sealed.length >= 16, 'open', 'short')
  const d = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 })
  d.setAAD(aad)
  d.setAuthTag(sealed.subarray(-16))
  try {
    return Buffer.concat([d.update(sealed.subarray(0, -16)), d.final()])
  } catch {
    throw new Refusal('open')
  }
}

// RFC 9180 section 5.1, base mode: KEM 0x647a, KDF 0x0001 (HKDF-SHA-256), AEAD 0x0002 (AES-256-GCM).
const SUITE = Buffer.concat([Buffer.from('HPKE'), Buffer.from([0x64, 0x7a, 0, 1, 0, 2])])
const hmac = (key, ...parts) => createHmac('sha256', key).update(Buffer.concat(parts)).digest()
const labeledExtract = (salt, label, ikm) => hmac(salt, Buffer.from('HPKE-v1'), SUITE, Buffer.from(label), ikm)
const labeledExpand = (prk, label, info, size) =>
  hmac(prk, Buffer.from([0, size]), Buffer.from('HPKE-v1'), SUITE, Buffer.from(label), info, Buffer.from([1])).subarray(0, size)

const schedule = (ss, info) => {
  const none = Buffer.alloc(0)
  const context = Buffer.concat([Buffer.from([0]), labeledExtract(none, 'psk_id_hash', none), labeledExtract(none, 'info_hash', info)])
  const secret = labeledExtract(ss, 'secret', none)
  return { key: labeledExpand(secret, 'key', context, 32), nonce: labeledExpand(secret, 'base_nonce', context, 12) }
}

/** hpkeSeal gives enc || ciphertext: section 6, point 4. */
export const hpkeSeal = (pk, info, plaintext, random) => {
  const { ct, ss } = encapsulate(pk, random)
  const { key, nonce } = schedule(ss, info)
  return Buffer.concat([ct, gcmSeal(key, nonce, plaintext)])
}

/** hpkeOpen opens what hpkeSeal gives: section 6, point 4. */
export const hpkeOpen = (seed, info, blob) => {
  demand(blob.length >= CT_SIZE + 16, 'open', 'short')
  const { key, nonce } = schedule(decapsulate(seed, blob.subarray(0, CT_SIZE)), info)
  return gcmOpen(key, nonce, blob.subarray(CT_SIZE))
}
