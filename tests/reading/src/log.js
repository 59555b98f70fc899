// Section 9 of the specification, "Key-use log": entries, checkpoints, receipts.

import { MAX_U64, decode, demand, encode, sha256 } from './encodings.js'
import { bytes, digitsOrZeroes, integer, listOf, object, oneOf, parse, text } from './json.js'
import { ed25519Verify } from './envelopes.js'
import { leafHash, verifyPath } from './tree.js'

const MAX_TIME = 1n << 53n

/** parseEntry reads a leaf of the log. */
export const parseEntry = (leaf) => {
  demand(leaf.length >= 8, 'malformed', 'short')
  const time = leaf.readBigUInt64BE()
  demand(time <= MAX_TIME, 'malformed', 'time')
  const [kind, owner, reader, outcome, commitment] = decode('entry', 5, leaf.subarray(8))
  demand(kind.length > 0 && owner.length === 16 && reader.length === 16 && commitment.length === 32, 'malformed', 'entry')
  return { time, kind: kind.toString('latin1'), owner, reader, outcome: outcome.toString('latin1'), commitment }
}

/** encodeEntry is the inverse of parseEntry. */
export const encodeEntry = ({ time, kind, owner, reader, outcome, commitment }) => {
  const at = Buffer.alloc(8)
  at.writeBigUInt64BE(time)
  return Buffer.concat([at, encode('entry', kind, owner, reader, outcome, commitment)])
}

/** The commitment of an entry to its details. */
export const entryCommitment = (salt, details) => sha256(encode('entry-commitment', salt, sha256(details)))

const id = digitsOrZeroes(32)
const count = integer(0n, MAX_U64)
const signed = integer(-(1n << 63n), (1n << 63n) - 1n)

/** The members of details, all of them optional. Section 9. */
const details = object({
  owner: id,
  reader: id,
  identity: id,
  pseudonym: digitsOrZeroes(16),
  document: id,
  grant: id,
  field: text,
  epoch: count,
  author: id,
  version: count,
  seq: count,
  head: id,
  leaf: id,
  session: id,
  request: id,
  nonce: digitsOrZeroes(16),
  purpose: text,
  token: text,
  grade: text,
  custody: text,
  expires: signed,
  decided: signed,
  period: integer(0n, (1n << 32n) - 1n),
  guardrails: id,
  index: count,
  count,
  items: listOf(object({ grant: id, field: text, author: id }), 0, Infinity),
  note: text,
})

/** openEntry checks that salt and details open the entry's commitment, and decodes the details. */
export const openEntry = (entry, salt, detailBytes) => {
  demand(entryCommitment(salt, detailBytes).equals(entry.commitment), 'proof', 'commitment')
  return details(parse(detailBytes))
}

/** openCheckpoint verifies a C2SP signed note (tlog-checkpoint) under one Ed25519 key: { size, root }. */
export const openCheckpoint = (note, name, key) => {
  const at = note.lastIndexOf('\n\n')
  demand(at >= 0 && note.endsWith('\n'), 'signature', 'not a note')
  const body = note.slice(0, at + 1)
  const keyHash = sha256(name, Buffer.from('\n'), Buffer.from([1]), key).subarray(0, 4)
  let verified = false
  for (const line of note.slice(at + 2, -1).split('\n')) {
    const parts = /^— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u.exec(line) // a key's name has no space and no plus
    demand(parts, 'signature', 'signature line')
    const sig = Buffer.from(parts[2], 'base64')
    demand(parts[2].length % 4 === 0 && sig.length >= 5, 'signature', 'signature line') // unused bits may be anything
    if (verified || parts[1] !== name || !sig.subarray(0, 4).equals(keyHash)) continue // others', or ours again
    demand(ed25519Verify(key, Buffer.from(body), sig.subarray(4)), 'signature')
    verified = true
  }
  demand(verified, 'signature', 'no signature of the log key')
  const lines = body.slice(0, -1).split('\n')
  demand(lines.length === 3 && lines[0] === name && /^(0|[1-9][0-9]{0,19})$/.test(lines[1]), 'malformed', 'checkpoint')
  const root = Buffer.from(lines[2], 'base64')
  demand(root.length === 32 && root.toString('base64') === lines[2], 'malformed', 'checkpoint')
  return { size: BigInt(lines[1]), root }
}

const receipt = object({
  type: oneOf('receipt'),
  suite: oneOf('SP1'),
  vault: id,
  document: id,
  evidence: object({
    index: count,
    leaf: bytes(),
    opening: object({ salt: digitsOrZeroes(16), details: bytes() }),
    proof: listOf(id, 0, Infinity), // a tree of one leaf has none
  }),
  checkpoint: text,
})

/** openReceipt accepts a receipt of a vault for a document, or says what is wrong. Sections 4 and 9. */
export const openReceipt = (receiptBytes, vault, document, logName, logKey) => {
  const r = receipt(parse(receiptBytes))
  demand(r.vault === vault && r.document === document, 'proof', 'another vault or document')
  const checkpoint = openCheckpoint(r.checkpoint, logName, logKey)
  const { index, leaf, opening, proof } = r.evidence
  verifyPath(leafHash(leaf), index, checkpoint.size, proof.map((p) => Buffer.from(p, 'hex')), checkpoint.root)
  const entry = parseEntry(leaf)
  const opened = openEntry(entry, Buffer.from(opening.salt, 'hex'), opening.details)
  demand(opened.document === document, 'proof', 'the entry is of another document')
  demand(entry.outcome === 'accepted', 'proof', 'outcome')
  return entry
}
