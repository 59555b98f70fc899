// Section 5 of the specification, "Items": values, capsules, leaves, rotation, and the tree of a manifest.

import { randomBytes } from 'node:crypto'
import { as, decode, demand, encode, equal, fieldName, hkdf, sha256 } from './encodings.js'
import { isZero, multiplyBase, multiplyX, reduce } from './p256.js'
import { slot } from './keys.js'
import { leafHash, path, root } from './tree.js'
import { gcmOpen, gcmSeal } from './xwing.js'

const MAX_VALUE = 1048576
const ZERO_NONCE = Buffer.alloc(12)

/** Padmé (PURBs, PETS 2019): the size that a length of so many bytes is padded to. */
export const padme = (length) => {
  if (length < 2) return length
  const e = Math.floor(Math.log2(length))
  const s = Math.floor(Math.log2(e)) + 1
  const step = 2 ** Math.max(e - s, 0)
  return Math.ceil(length / step) * step
}

/** Sizes of step 2: padded, and with GCM's tag. */
export const sizes = (length) => {
  demand(length <= MAX_VALUE, 'too_large')
  const padded = padme(4 + length)
  return { padded, ciphertext: padded + 16 }
}

/** Step 2 and its inverse. */
export const pad = (value) => {
  const out = Buffer.alloc(sizes(value.length).padded)
  out.writeUInt32BE(value.length)
  value.copy(out, 4)
  return out
}
const unpad = (padded) => {
  demand(padded.length >= 4, 'open', 'padding')
  const length = padded.readUInt32BE()
  demand(length <= MAX_VALUE && padme(4 + length) === padded.length && isZero(padded.subarray(4 + length)), 'open', 'padding')
  return padded.subarray(4, 4 + length)
}

/** C of step 1. */
export const commitment = (dek) => hkdf(dek, null, encode('commit'), 32)

/** The associated data of step 3. */
export const itemAAD = (owner, field, version) => encode('item', owner, field, version)

/** The info of the KEK in step 4. */
export const kekInfo = (s, version, E) => encode('kek', s.owner, s.field, s.epoch, s.author, version, E)

/** Step 4: a capsule for a DEK. `zOf` gives x(rA) from r; random is r (48 bytes, reduced mod n) and s (32). */
const capsuleFor = (dek, zOf, s, version, random) => {
  const r = reduce(random.subarray(0, 48))
  demand(!isZero(r), 'key', 'r of zero')
  const salt = random.subarray(48, 80)
  const E = multiplyBase(r)
  const Z = zOf(r)
  const info = kekInfo(s, version, E)
  const KEK = hkdf(Z, salt, info, 32)
  const W = gcmSeal(KEK, ZERO_NONCE, dek)
  return { capsule: Buffer.concat([E, salt, W]), r, s: salt, E, Z, kek_info: info, KEK, W }
}

/** Step 6. */
export const encodeLeaf = (l) => encode('leaf', l.owner, l.field, l.epoch, l.author, l.version, l.capsule, l.ciphertextHash, l.commitment)

/** parseLeaf reads step 6 strictly. */
export const parseLeaf = (bytes) => {
  const [owner, field, epoch, author, version, capsule, ciphertextHash, c] = decode('leaf', 8, bytes)
  for (const [part, size] of [[owner, 32], [epoch, 8], [author, 32], [version, 8], [capsule, 113], [ciphertextHash, 32], [c, 32]])
    demand(part.length === size, 'malformed', 'leaf')
  const leaf = { owner, field: field.toString('latin1'), epoch: epoch.readBigUInt64BE(), author, version: version.readBigUInt64BE(), capsule, ciphertextHash, commitment: c }
  fieldName(leaf.field)
  demand(leaf.epoch >= 1n && leaf.version >= 1n, 'malformed', 'epochs and versions count from 1')
  return leaf
}

/** The A of a field key: the secret with which another author writes. Section 2. */
export const authorKey = (a) => multiplyBase(a)

/** seal makes an item, steps 1 to 6, for a slot under A (33 bytes). random is DEK (32), r (48), s (32). */
export const seal = (A, at, version, value, random = randomBytes(112)) => {
  const s = slot(at)
  demand(version >= 1n, 'malformed', 'version')
  const dek = random.subarray(0, 32)
  const padded = pad(value)
  const aad = itemAAD(s.owner, s.field, version)
  const ciphertext = gcmSeal(dek, ZERO_NONCE, padded, aad)
  const c = capsuleFor(dek, (r) => multiplyX(r, A, 'key'), s, version, random.subarray(32))
  const leaf = encodeLeaf({ ...s, version, capsule: c.capsule, ciphertextHash: sha256(ciphertext), commitment: commitment(dek) })
  return { ...c, dek, padded, aad, ciphertext, leaf, ciphertext_hash: sha256(ciphertext), commitment: commitment(dek) }
}

/** dekOf opens W with Z, and checks C before anything else is opened. Sections 5 and 6. */
const dekOf = (leaf, Z) => {
  const E = leaf.capsule.subarray(0, 33)
  const KEK = hkdf(Z, leaf.capsule.subarray(33, 65), kekInfo(leaf, leaf.version, E), 32)
  const dek = gcmOpen(KEK, ZERO_NONCE, leaf.capsule.subarray(65))
  demand(equal(commitment(dek), leaf.commitment), 'open', 'commitment')
  return dek
}

/** openWith opens an item from Z = x(aE), however it was come by. Section 5, and the end of 6. */
export const openWith = (Z, leaf, ciphertext) =>
  as('open', () => {
    demand(sha256(ciphertext).equals(leaf.ciphertextHash), 'open', 'hash of the ciphertext')
    return unpad(gcmOpen(dekOf(leaf, Z), ZERO_NONCE, ciphertext, itemAAD(leaf.owner, leaf.field, leaf.version)))
  })

const isOf = (leaf, s) => demand(leaf.owner.equals(s.owner) && leaf.field === s.field && leaf.epoch === s.epoch && leaf.author.equals(s.author), 'open', 'slot')

/** open opens an owner's own item with the field key a. Every failure looks alike. Section 5. */
export const open = (a, at, leafBytes, ciphertext) =>
  as('open', () => {
    const leaf = parseLeaf(leafBytes)
    isOf(leaf, slot(at))
    return openWith(multiplyX(a, leaf.capsule.subarray(0, 33)), leaf, ciphertext)
  })

/** rotate moves an item to a later epoch: step 4 afresh for the same DEK. random is r (48), s (32). Section 5. */
export const rotate = (a, at, leafBytes, nextKey, nextEpoch, random = randomBytes(80)) => {
  demand(nextEpoch > at.epoch, 'key', 'epochs grow')
  return as('open', () => {
    const leaf = parseLeaf(leafBytes)
    isOf(leaf, slot(at))
    const dek = dekOf(leaf, multiplyX(a, leaf.capsule.subarray(0, 33)))
    const next = { ...leaf, epoch: nextEpoch }
    const A = multiplyBase(nextKey)
    return encodeLeaf({ ...next, capsule: capsuleFor(dek, (r) => multiplyX(r, A), next, leaf.version, random).capsule })
  })
}

/** tree sorts the leaves of one owner and author by field; no field twice. Section 5, "Tree". */
export const tree = (leaves) => {
  const parsed = leaves.map((bytes) => ({ bytes, ...parseLeaf(bytes) }))
  parsed.sort((x, y) => Buffer.compare(Buffer.from(fieldName(x.field)), Buffer.from(y.field)))
  for (let i = 1; i < parsed.length; i++) {
    demand(parsed[i].field !== parsed[i - 1].field, 'malformed', 'a field twice')
    demand(parsed[i].owner.equals(parsed[0].owner) && parsed[i].author.equals(parsed[0].author), 'malformed', 'leaves of several')
  }
  const hashes = parsed.map((l) => leafHash(l.bytes))
  return { root: root(hashes), leaves: parsed.map((l) => l.bytes), proofs: hashes.map((_, i) => path(hashes, i)) }
}
