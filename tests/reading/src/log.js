// Section 9 of the specification, "Key-use log": entries, checkpoints, receipts.

import { ml_dsa44 } from '@noble/post-quantum/ml-dsa'
import { MAX_U64, decode, demand, encode, sha256 } from './encodings.js'
import { bytes, digitsOrZeroes, integer, listOf, object, oneOf, parse, text } from './json.js'
import { ed25519Verify } from './envelopes.js'
import { leafHash, verifyPath } from './tree.js'

const MAX_TIME = 1n << 53n
const LATEST = 253402300799n // the last second of the year 9999

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
  checks: bytes(),
  note: text,
})

/** openEntry checks that salt and details open the entry's commitment, and decodes the details. */
export const openEntry = (entry, salt, detailBytes) => {
  demand(entryCommitment(salt, detailBytes).equals(entry.commitment), 'proof', 'commitment')
  return details(parse(detailBytes))
}

const keyId = (name, type, key) => sha256(name, Buffer.from('\n'), Buffer.from([type]), key).subarray(0, 4)

/** The keys whose lines in a note count: { name, id, verify(body, signature) }. */
const logVerifier = (name, key) => ({ name, id: keyId(name, 1, key), verify: (body, sig) => ed25519Verify(key, Buffer.from(body), sig) })

const u64 = (n) => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64BE(BigInt(n))
  return out
}

/** C2SP tlog-cosignature, types 0x04 and 0x06. */
const cosignerVerifier = (name, type, key) => ({
  name,
  key,
  id: keyId(name, type, key),
  verify: (body, sig) => {
    if (sig.length < 8) return false
    const time = sig.readBigUInt64BE()
    const signature = sig.subarray(8)
    if (time === 0n || time > LATEST) return false
    if (type === 4) return ed25519Verify(key, Buffer.from(`cosignature/v1\ntime ${time}\n${body}`), signature)
    const lines = checkpointLines(body)
    if (!lines || signature.length !== 2420) return false
    const [owner, origin] = [Buffer.from(name), Buffer.from(lines.origin)]
    if (origin.length > 255) return false
    const message = [Buffer.from('subtree/v1\n\0'), Buffer.from([owner.length]), owner, u64(time), Buffer.from([origin.length]), origin, u64(0), u64(lines.size), lines.root]
    return ml_dsa44.verify(key, Buffer.concat(message), signature)
  },
})

/** openNote reads a C2SP signed note and returns its body and the signatures that verified, by the verifiers given. */
const openNote = (note, verifiers) => {
  const at = note.lastIndexOf('\n\n')
  demand(at >= 0 && note.endsWith('\n'), 'signature', 'not a note')
  const body = note.slice(0, at + 1)
  const verified = new Map()
  for (const line of note.slice(at + 2, -1).split('\n')) {
    const parts = /^— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u.exec(line) // a key's name has no space and no plus
    demand(parts, 'signature', 'signature line')
    const sig = Buffer.from(parts[2], 'base64')
    demand(parts[2].length % 4 === 0 && sig.length >= 5, 'signature', 'signature line') // unused bits may be anything
    const by = verifiers.find((v) => parts[1] === v.name && sig.subarray(0, 4).equals(v.id))
    if (!by || verified.has(by)) continue // others', or one again
    demand(by.verify(body, sig.subarray(4)), 'signature')
    verified.set(by, sig.subarray(4))
  }
  return { body, verified }
}

/** Origin, size and root of a checkpoint's body, or nothing. */
const checkpointLines = (body) => {
  const lines = body.slice(0, -1).split('\n')
  if (lines.length !== 3 || !/^(0|[1-9][0-9]{0,19})$/.test(lines[1]) || BigInt(lines[1]) > MAX_U64) return undefined
  const root = Buffer.from(lines[2], 'base64')
  if (root.length !== 32 || root.toString('base64') !== lines[2]) return undefined
  return { origin: lines[0], size: BigInt(lines[1]), root }
}

const checkpointOf = (body, name) => {
  const lines = checkpointLines(body)
  demand(lines && lines.origin === name, 'malformed', 'checkpoint')
  return lines
}

/** openCheckpoint verifies a C2SP signed note (tlog-checkpoint) under one Ed25519 key: { size, root }. */
export const openCheckpoint = (note, name, key) => {
  const token = logVerifier(name, key)
  const { body, verified } = openNote(note, [token])
  demand(verified.has(token), 'signature', 'no signature of the log key')
  return checkpointOf(body, name)
}

/** A witness from its verifier key. */
const parseCosigner = (vkey) => {
  const [, name, id, material] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/u.exec(vkey) ?? []
  demand(name && Buffer.from(name).length <= 255, 'malformed', 'verifier key')
  const raw = Buffer.from(material, 'base64')
  demand(raw.toString('base64') === material && raw.length > 0, 'malformed', 'verifier key')
  const [type, key] = [raw[0], raw.subarray(1)]
  demand((type === 4 && key.length === 32) || (type === 6 && key.length === 1312), 'malformed', 'verifier key')
  const cosigner = cosignerVerifier(name, type, key)
  demand(cosigner.id.toString('hex') === id, 'malformed', 'verifier key')
  return cosigner
}

/** openPublished verifies a published checkpoint: token, host, and at least need of the witnesses. */
export const openPublished = (note, { log, host, witnesses, need }) => {
  const token = logVerifier(log.name, log.key)
  const hostKey = cosignerVerifier(host.name, 6, host.key)
  const others = witnesses.map(parseCosigner)
  demand(need >= 0 && need <= others.length, 'malformed', 'need')
  const seen = [log, host]
  for (const w of others) {
    demand(!seen.some((s) => s.name === w.name || s.key.equals(w.key)), 'malformed', 'one witness twice')
    seen.push(w)
  }
  const { body, verified } = openNote(note, [token, hostKey, ...others])
  demand(verified.has(token) && verified.has(hostKey), 'signature', 'the line of token or host is missing')
  const { size, root } = checkpointOf(body, log.name)
  const signed = [...verified.keys()].filter((v) => others.includes(v))
  demand(signed.length >= need, 'signature', 'too few witnesses')
  const time = (v) => verified.get(v).readBigUInt64BE()
  return { size, root, host: time(hostKey), witnesses: signed.map((v) => `${v.name} ${time(v)}`).join(' ') }
}

const proven = object({
  index: integer(0n, MAX_U64),
  leaf: bytes(),
  opening: object({ salt: digitsOrZeroes(16), details: bytes() }),
  proof: listOf(id, 0, 64), // a tree of one leaf has none
})

const evidence = object({
  checkpoint: text,
  evidence: listOf(proven, 0, 1000),
  absent: listOf(integer(0n, MAX_U64), 0, 1000),
  before: integer(0n, MAX_U64),
})

/** openEvidence verifies the plaintext of an answer to a request for evidence. Sections 7 and 9. */
export const openEvidence = (answerBytes, logName, logKey) => {
  const a = evidence(parse(answerBytes))
  demand(a.evidence.length + a.absent.length <= 1000, 'malformed', 'more entries than a request may ask for')
  const checkpoint = openCheckpoint(a.checkpoint, logName, logKey)
  const entries = a.evidence.map(({ index, leaf, opening, proof }) => {
    verifyPath(leafHash(leaf), index, checkpoint.size, proof.map((p) => Buffer.from(p, 'hex')), checkpoint.root)
    const entry = parseEntry(leaf)
    const erased = /^0*$/.test(opening.salt) && opening.details.length === 0
    if (!erased) openEntry(entry, Buffer.from(opening.salt, 'hex'), opening.details)
    return { index, kind: entry.kind, outcome: entry.outcome, erased: String(erased) }
  })
  return { entries, absent: a.absent, before: a.before }
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
