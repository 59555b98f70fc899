// Section 4 of the specification, "Documents": the members of each type, and what must hold among them.

import { randomBytes } from 'node:crypto'
import { MAX_U64, demand, encode, fieldName, hex, sha256, visible, visibleText } from './encodings.js'
import { hasKey } from './confusables.js'
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

/** The scripts that may stand together with Latin in a name that is vouched for. Section 16. */
const TOGETHER = [
  ['Han', 'Hiragana', 'Katakana'],
  ['Han', 'Bopomofo'],
  ['Han', 'Hangul'],
].map((set) => new RegExp(`^[\\p{Script=Common}\\p{Script=Inherited}\\p{Script=Latin}${set.map((s) => `\\p{Script=${s}}`).join('')}]*$`, 'u'))

/** Scripts of which a name may be alone: all that node knows by name and this reading meets. Section 16. */
const ALONE = (
  'Latin Greek Cyrillic Han Hebrew Arabic Armenian Georgian Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Ethiopic ' +
  'Cherokee Khmer Mongolian Hangul Hiragana Katakana Bopomofo Thaana Syriac'
)
  .split(' ')
  .map((s) => new RegExp(`^[\\p{Script=Common}\\p{Script=Inherited}\\p{Script=${s}}]*$`, 'u'))

/** voucherName is a name that may be vouched for. Section 16. */
const voucherName = (name) => {
  demand(/\p{L}/u.test(name), 'malformed', 'no letter')
  demand(hasKey(name), 'malformed', 'no key')
  demand(!/[\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Variation_Selector}]/u.test(name), 'malformed', 'invisible')
  demand(name.normalize('NFC') === name, 'malformed', 'not NFC')
  demand(name.trim().split(/\s+/u).join(' ') === name, 'malformed', 'spaces')
  demand([...TOGETHER, ...ALONE].some((r) => r.test(name)), 'malformed', 'scripts')
}

/** domain is the name of a host. Section 16. */
const domain = (v) => {
  const labels = text(v ?? '').split('.')
  demand(labels.length >= 2 && v.length <= 253, 'malformed', 'domain')
  demand(labels.every((l) => /^[a-z0-9-]{1,63}$/.test(l) && !l.startsWith('-') && !l.endsWith('-')), 'malformed', 'domain')
  demand(!/^[0-9]+$/.test(labels.at(-1)), 'malformed', 'an address')
  return v
}

const item = object({ grant: id, field, author: id })
const keyOrNone = (v) => (v === undefined || v === null || v === '' ? Buffer.alloc(0) : bytes(COMPOSITE_KEY_SIZE)(v))

Object.assign(TYPES, {
  closure: { shape: { aud: id, owner: id, ...link } },
  succession: {
    shape: {
      aud: id,
      identity: id,
      ...link,
      generation: integer(2n, 1n << 32n),
      previous: id,
      signing_key: bytes(COMPOSITE_KEY_SIZE),
      kem_key: kem,
      login_key: kem,
      recovery_hash: id,
      recovery_key: keyOrNone,
      notice: digitsOrZeroes(32),
      reason: oneOf('lost', 'stolen', 'planned'),
    },
    check: (d) => {
      demand(!d.kem_key.equals(d.login_key), 'malformed', 'one key for two uses')
      demand((d.recovery_key.length > 0) === /^0*$/.test(d.notice), 'malformed', 'either the recovery key or a notice')
      demand(sha256(d.signing_key).toString('hex') !== d.recovery_hash, 'malformed', 'one key to sign and to recover')
    },
  },
  'succession-notice': { shape: { aud: id, identity: id, ...link, successor: digitsOrZeroes(32) } },
  suspension: { shape: { aud: id, reader: id, ...link } },
  renunciation: { shape: { aud: id, reader: id, owner: id, items: listOf(item, 1, 4096) } },
  voucher: {
    shape: { aud: id, identity: id, serial: count, name: (v) => visibleText(text(v), 1), not_before: integer(0n, MAX_TIME), expires: integer(0n, MAX_TIME), withdrawn: flag },
    check: (d) => {
      if (d.withdrawn) return demand(d.not_before === 0n && d.expires === 0n, 'malformed', 'withdrawn and good')
      demand(d.not_before > 0n && d.expires > d.not_before && d.expires - d.not_before <= 400n * 86400n, 'malformed', 'time')
      voucherName(d.name)
    },
  },
  guardrails: {
    shape: {
      aud: id,
      serial: count,
      rules: (v) => {
        demand(Buffer.byteLength(text(v)) <= 32768, 'malformed', 'rules')
        visible(v.replace(/[\t\n]/g, ' '))
        return v
      },
    },
  },
  'invitation-answer': {
    shape: {
      from: id,
      to: id,
      answers: digitsOrZeroes(32),
      expires: time,
      invitation: (v) => {
        const token = bytes()(v)
        demand(token.length >= 1 && token.length <= 512, 'malformed', 'invitation')
        return token
      },
      nonce,
    },
    check: (d) => {
      demand(d.from !== d.to && d.expires > d.time, 'malformed', 'parties or time')
      demand(/^0*$/.test(d.answers), 'malformed', 'it answers nothing')
    },
  },
  'domain-statement': {
    shape: { identity: id, domain, expires: time },
    check: (d) => demand(d.expires > d.time && d.expires - d.time <= 400n * 86400n, 'malformed', 'time'),
  },
})

/** successor is what a notice announces of a succession. Section 13. */
export const successor = (d) => sha256(encode('successor', hex(d.identity, 32), d.signing_key, d.kem_key, d.login_key, hex(d.recovery_hash, 32)))

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
export const open = (envelopeBytes, type, key, second) => {
  const e = read(envelopeBytes)
  if (e.type !== type && type) demand(false, 'malformed', 'another type')
  verify(e, key, second)
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
