// Section 7 of the specification, "Sessions, reads, answers".

import { randomBytes } from 'node:crypto'
import { demand, encode, hkdf, u64 } from './encodings.js'
import { leafHash, verifyPath } from './tree.js'
import { parseLeaf } from './items.js'
import { gcmOpen, gcmSeal } from './xwing.js'

/** K of a session. */
export const sessionKey = (ss, vault, reader, session) => hkdf(ss, null, encode('session-key', vault, reader, session), 32)

/** The key of one answer, from K and the request's hash; use is `answer`, or `evidence`. */
export const answerKey = (K, request, use = 'answer') => hkdf(K, null, encode(use, request), 32)

/** sealAnswer is the vault's part: nonce || AES-256-GCM. */
export const sealAnswer = (K, request, plaintext, nonce = randomBytes(12), use = 'answer') =>
  Buffer.concat([nonce, gcmSeal(answerKey(K, request, use), nonce, plaintext, encode(use, request))])

/** openAnswer gives the plaintext. */
export const openAnswer = (K, request, answer, use = 'answer') => {
  demand(answer.length >= 28, 'open', 'short')
  return gcmOpen(answerKey(K, request, use), answer.subarray(0, 12), answer.subarray(12), encode(use, request))
}

const ITEM_TAIL = 32 + 32 + 32 + 8 + 8 + 8

/** parseAnswer reads the plaintext strictly. */
export const parseAnswer = (bytes) => {
  demand(bytes.length >= 10, 'malformed', 'short')
  demand(bytes.readUInt16BE(8) <= 1000, 'malformed', 'more items than a request may name')
  const items = []
  let at = 10
  for (let left = bytes.readUInt16BE(8); left > 0; left--) {
    demand(at < bytes.length, 'malformed', 'cut')
    const end = at + 1 + bytes[at]
    demand(end + ITEM_TAIL <= bytes.length, 'malformed', 'cut')
    const outcome = bytes.subarray(at + 1, end).toString('latin1')
    items.push({
      outcome,
      x: bytes.subarray(end, end + 32),
      leaf_hash: bytes.subarray(end + 32, end + 64),
      head: bytes.subarray(end + 64, end + 96),
      version: bytes.readBigUInt64BE(end + 96),
      index: bytes.readBigUInt64BE(end + 104),
      accepted: bytes.readBigUInt64BE(end + 112),
    })
    at = end + ITEM_TAIL
  }
  demand(at === bytes.length, 'malformed', 'bytes after the last item')
  return { time: bytes.readBigUInt64BE(0), items }
}

/** writeAnswer is the inverse of parseAnswer. */
export const writeAnswer = ({ time, items }) => {
  const count = Buffer.alloc(2)
  count.writeUInt16BE(items.length)
  return Buffer.concat([
    u64(time),
    count,
    ...items.flatMap((i) => [Buffer.from([i.outcome.length]), Buffer.from(i.outcome, 'latin1'), i.x, i.leaf_hash, i.head, u64(i.version), u64(i.index), u64(i.accepted)]),
  ])
}

/**
 * checkItem is what a reader MUST check of an item before it is opened; gives the leaf. manifest = { document, hash } whose
 * signature was verified. seen = { manifest, item }: the highest versions seen.
 */
export const checkItem = (asked, answered, { leaf: leafBytes, index, path }, manifest, seen) => {
  const leaf = parseLeaf(leafBytes)
  demand(leafHash(leafBytes).equals(answered.leaf_hash), 'proof', 'leaf')
  const author = /^0*$/.test(asked.author) ? asked.owner : asked.author
  demand(leaf.owner.toString('hex') === asked.owner && leaf.field === asked.field && leaf.author.toString('hex') === author, 'proof', 'another item')
  const m = manifest.document
  demand(manifest.hash.equals(answered.head) && m.owner === asked.owner && m.author === author && m.version === answered.version, 'proof', 'manifest')
  verifyPath(answered.leaf_hash, index, m.tree_size, path, Buffer.from(m.root, 'hex'))
  demand(m.version >= seen.manifest && leaf.version >= seen.item, 'proof', 'older than one seen')
  return leaf
}
