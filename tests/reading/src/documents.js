// Section 4 of the specification, "Documents": the members of each type, and what must hold among them.

import { randomBytes } from 'node:crypto'
import { MAX_U64, demand, fieldName, sha256, visibleText } from './encodings.js'
import { bytes, digits, digitsOrZeroes, flag, integer, listOf, object, oneOf, parse, text } from './json.js'
import { COMPOSITE_KEY_SIZE, make, read, verify } from './envelopes.js'
import { CT_SIZE, PUBLIC_SIZE } from './xwing.js'

const MAX_TIME = (1n << 63n) - 1n
const id = digits(32)
const nonce = digits(16)
const time = integer(1n, MAX_TIME)
const count = integer(1n, MAX_U64)
const field = (v) => fieldName(text(v))
const purpose = (v) => visibleText(text(v), 1)
const keyName = (v) => {
  demand(/^[!-*,-~]{1,255}$/.test(text(v)), 'malformed', "a log key's name")
  return v
}

const named = (v) => {
  demand(text(v) !== '', 'malformed', 'empty text')
  return v
}
const custody = oneOf('resident', 'sealed')
const kem = bytes(PUBLIC_SIZE)

const header = (type) => ({ type: oneOf(type), suite: oneOf('SP1'), id, time })
const link = { seq: count, prev: digitsOrZeroes(32) }
const distinct = (items, name) => demand(new Set(items.map(name)).size === items.length, 'malformed', 'one thing twice')

/** Shape and check of each type. Sections 3 (limits) and 4 (members). */
const TYPES = {
  identity: {
    shape: { kind: oneOf('person', 'business'), name: (v) => visibleText(text(v), 0), signing_key: bytes(COMPOSITE_KEY_SIZE), kem_key: kem, login_key: kem, recovery_hash: id },
    check: (d) => demand(d.kind === 'business' || d.name === '', 'malformed', 'a person with a name'),
  },
  vault: {
    shape: {
      vault: id,
      version: count,
      ceremony_key: bytes(COMPOSITE_KEY_SIZE),
      tokens: listOf(
        object({
          serial: named,
          label: text,
          model: text,
          grade: text,
          import_keys: listOf(object({ custody: text, path: text, oaep_hash: text, public_key: bytes() }), 1, Infinity),
        }),
        1,
        Infinity
      ),
      log_key: object({ name: keyName, algorithm: oneOf('Ed25519'), public_key: bytes(32) }),
      log_host_key: object({ name: keyName, algorithm: oneOf('ML-DSA-44'), public_key: bytes(1312) }),
      import_hpke_key: kem,
      session_kem_key: kem,
      dev_mode: flag,
    },
    check: (d) => {
      demand(!d.import_hpke_key.equals(d.session_kem_key), 'malformed', 'one key for two uses')
      demand(d.log_key.name !== d.log_host_key.name, 'malformed', 'one name for two log keys')
    },
  },
  relationship: { shape: { aud: id, reader: id, owner: id, kem_key: kem, nonce } },
  manifest: {
    shape: { aud: id, owner: id, author: id, ...link, version: count, prev_manifest: digitsOrZeroes(32), tree_size: integer(0n, 1n << 20n), root: id },
    check: (d) => {
      demand((d.version === 1n) === /^0*$/.test(d.prev_manifest), 'malformed', 'the manifest before')
      demand(d.author === d.owner || (d.seq === d.version && d.prev === d.prev_manifest), 'malformed', "another author's chain")
    },
  },
  grant: {
    shape: {
      aud: id,
      owner: id,
      ...link,
      reader: id,
      relationship: id,
      custody,
      rights: listOf(oneOf('read'), 1, 1),
      purpose,
      not_before: time,
      expires: time,
      limits: object({ reads_per_day: integer(0n, MAX_U64) }),
      ct: bytes(CT_SIZE),
      fields: listOf(
        object({ field, epoch: count, author: id, keys: listOf(object({ token: named, import_key: id, path: named, digest: id }), 1, Infinity) }),
        1,
        256
      ),
    },
    check: (d) => {
      demand(d.expires > d.not_before, 'malformed', 'ends before it begins')
      distinct(d.fields, (f) => `${f.field} ${f.author}`)
      for (const f of d.fields) distinct(f.keys, (k) => k.token)
    },
  },
  revocation: {
    shape: { aud: id, owner: id, ...link, items: listOf(object({ grant: id, field, author: id }), 1, 4096), reason: oneOf('withdrawn', 'superseded') },
  },
  session: {
    shape: { aud: id, reader: id, key: bytes(32), not_before: time, expires: time, ct: bytes(CT_SIZE) },
    check: (d) => {
      demand(d.key.some((b) => b !== 0), 'malformed', 'key of zeroes')
      demand(d.expires > d.not_before && d.expires - d.not_before <= 600n, 'malformed', 'length')
    },
  },
  read: {
    shape: {
      aud: id,
      session: id,
      nonce,
      expires: time,
      purpose,
      items: listOf(object({ owner: id, field, author: digitsOrZeroes(32), known: integer(0n, MAX_U64) }), 1, 1000),
    },
    check: (d) => demand(d.expires > d.time && d.expires - d.time <= 120n, 'malformed', 'length'),
  },
  evidence: {
    shape: {
      aud: id,
      session: id,
      nonce,
      expires: time,
      indexes: listOf(integer(0n, MAX_U64), 0, 1000),
      before: integer(0n, MAX_U64),
      limit: integer(0n, 1000n),
    },
    check: (d) => {
      demand(d.expires > d.time && d.expires - d.time <= 120n, 'malformed', 'length')
      demand((d.indexes.length > 0) !== (d.limit > 0n), 'malformed', 'either indexes or a limit')
      demand(d.limit > 0n || d.before === 0n, 'malformed', 'before without a limit')
      demand(d.indexes.every((n, i) => i === 0 || n > d.indexes[i - 1]), 'malformed', 'indexes ascend')
    },
  },
  'audit-query': {
    shape: { aud: id, auditor: id, nonce, expires: time, from: integer(0n, 1n << 62n), count: integer(1n, 1n << 16n), what: oneOf('entries', 'bodies') },
    check: (d) => demand(d.expires > d.time && d.expires - d.time <= 120n, 'malformed', 'length'),
  },
}

/** follows refuses a link that is not the next after (seq, hash); a chain begins after (0, the owner's id). Section 4. */
export const follows = (d, seq, hash) => demand(d.seq === seq + 1n && d.prev === hash, 'malformed', 'not the next link')

/** decodePayload reads a payload strictly. Sections 1, 3 and 4. */
export const decodePayload = (type, payload) => {
  demand(Object.hasOwn(TYPES, type), 'malformed', 'type')
  const { shape, check } = TYPES[type]
  const d = object({ ...header(type), ...shape })(parse(payload))
  check?.(d)
  return d
}

/** open reads, verifies and decodes a document: { document, payload, hash }. Sections 3 and 4. */
export const open = (envelopeBytes, type, key) => {
  const e = read(envelopeBytes)
  if (e.type !== type && type) demand(false, 'malformed', 'another type')
  verify(e, key)
  return { document: decodePayload(e.type, e.payload), payload: e.payload, hash: e.hash }
}

/** openIdentity verifies an identity under its own key; its id is the hash. Section 4. */
export const openIdentity = (envelopeBytes) => {
  const e = read(envelopeBytes)
  demand(e.type === 'identity', 'malformed', 'another type')
  const document = decodePayload(e.type, e.payload)
  verify(e, document.signing_key)
  return { document, payload: e.payload, hash: e.hash }
}

/** openVault verifies a vault document as a client pins it. Section 4, "Vault document". */
export const openVault = (envelopeBytes, pin) => {
  const e = read(envelopeBytes)
  demand(e.type === 'vault', 'malformed', 'another type')
  const document = decodePayload(e.type, e.payload)
  demand(document.vault === pin.vault && sha256(document.ceremony_key).toString('hex') === pin.ceremony, 'pin')
  verify(e, document.ceremony_key)
  demand(document.version >= pin.newest, 'pin', 'older than one seen')
  return { document, payload: e.payload, hash: e.hash }
}

/** makeDocument signs a document of a type at a time; members in the order of the table. Section 4. */
export const makeDocument = (type, seconds, members, key) => {
  const document = { type, suite: 'SP1', id: randomBytes(32).toString('hex'), time: seconds, ...members }
  return { ...make(document, key), document }
}

/** Members of an identity document. Section 4. */
export const identityMembers = (kind, name, keys) => ({
  kind,
  name: kind === 'business' ? name : undefined,
  signing_key: keys.signing.public,
  kem_key: keys.kemKey,
  login_key: keys.loginKey,
  recovery_hash: keys.recoveryHash.toString('hex'),
})
