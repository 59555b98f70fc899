// The operations of tests/vectors/*.json, by file: from the inputs of a case to its outputs, or a Refusal. The test of the
// vectors and the live exchange with Go both go through here. Byte strings come and go as hexadecimal, integers as decimal text.

import { as, demand, encode, hkdf, hex, sha256 } from './encodings.js'
import * as p256 from './p256.js'
import * as keys from './keys.js'
import * as items from './items.js'
import * as grants from './grants.js'
import * as sessions from './sessions.js'
import * as login from './login.js'
import * as log from './log.js'
import * as invitations from './invitations.js'
import * as links from './links.js'
import * as password from './password.js'
import * as envelopes from './envelopes.js'
import * as documents from './documents.js'
import * as guardrails from './guardrails.js'
import { write } from './json.js'
import { leafHash, verifyPath } from './tree.js'
import { decapsulate, encapsulate, hpkeOpen, hpkeSeal, publicKey } from './xwing.js'

const b = (text) => Buffer.from(text, 'hex')
/** Texts may come in hexadecimal, where they are no UTF-8. */
const given = (i, name) => (`${name}_hex` in i ? b(i[`${name}_hex`]) : Buffer.from(i[name]))
const slotOf = (i) => keys.slot({ owner: b(i.owner), field: i.field, epoch: BigInt(i.epoch), author: b(i.author) })

/** The reader's key of a relationship, from the reader's root. */
const readerSeedOf = (i) => keys.readerSeed(b(i.reader_root), b(i.owner), b(i.nonce))

const grant = (i) => {
  const s = slotOf(i)
  const a = keys.fieldKey(b(i.root), s)
  const seed = readerSeedOf(i)
  const { ct, ss } = encapsulate(publicKey(seed), b(i.random))
  demand(decapsulate(seed, ct).equals(ss), 'open', 'the reader comes to another secret')
  const d = grants.grantScalar(ss, b(i.grant), b(i.reader), s)
  const rk = grants.reencryptionKey(a, d)
  const okm = hkdf(ss, null, encode('grant', b(i.grant), s.owner, b(i.reader), s.field, s.epoch, s.author), 48)
  return { a, ct, d, okm, pkcs8: p256.toPKCS8(rk), rk, ss }
}

const seal = (i) => {
  const s = slotOf(i)
  return items.seal(items.authorKey(keys.fieldKey(b(i.root), s)), s, BigInt(i.version), b(i.value), b(i.random))
}

const open = (i) => ({ value: items.open(keys.fieldKey(b(i.root), slotOf(i)), slotOf(i), b(i.leaf), b(i.ciphertext)) })

/** What the vault said under K, opened and sealed again. */
const openSealed = (i, use) => {
  const ss = decapsulate(b(i.seed), b(i.ct))
  const K = sessions.sessionKey(ss, b(i.vault), b(i.reader), b(i.session))
  const plaintext = sessions.openAnswer(K, b(i.request), b(i.answer), use)
  if (i.random) {
    const made = encapsulate(b(i.public), b(i.random))
    demand(made.ct.equals(b(i.ct)) && made.ss.equals(ss), 'open', 'encapsulated again it is another secret')
    demand(sessions.sealAnswer(K, b(i.request), plaintext, b(i.answer_nonce), use).equals(b(i.answer)), 'open', 'sealed again it is another answer')
  }
  return { K, answer_key: sessions.answerKey(K, b(i.request), use), plaintext, ss }
}

const opened = ({ payload, hash }) => ({ payload: payload.toString(), hash })
const documentOperations = {
  document: (i) => {
    if (i.pin_vault) return opened(documents.openVault(Buffer.from(i.envelope), { vault: i.pin_vault, ceremony: i.pin_ceremony, newest: BigInt(i.newest) }))
    return opened(documents.open(given(i, 'envelope'), i.type, b(i.public), i.second && b(i.second)))
  },
  payload: (i) => ({ document: write(documents.decodePayload(i.type, given(i, 'payload'))) }),
  successor: (i) => ({ successor: documents.successor(documents.decodePayload('succession', given(i, 'payload'))) }),
}

const loginChallenge = (i) => ({ server: i.server, subject: b(i.subject), ct: b(i.ct), nonce: b(i.nonce), freshKey: b(i.fresh_key) })

/** operations[file][operation](in) gives out. */
export const operations = {
  hkdf: {
    hkdf: (i) => {
      const info = encode(i.use, ...i.fields.map(b))
      return { info, okm: hkdf(b(i.ikm), b(i.salt), info, Number(i.size)) }
    },
  },
  scalar: {
    reduce: (i) => ({ scalar: p256.reduce(b(i.wide)) }),
    quotient: (i) => ({ rk: p256.quotient(b(i.a), b(i.d)) }),
    'field-key': (i) => {
      const s = slotOf(i)
      const a = keys.fieldKey(b(i.root), s)
      return { A: items.authorKey(a), a, okm: hkdf(b(i.root), null, encode('field', s.field, s.epoch, s.author), 48) }
    },
    're-encryption-key': grant,
  },
  pkcs8: {
    parse: (i) => {
      const scalar = p256.fromPKCS8(b(i.pkcs8))
      demand(p256.toPKCS8(scalar).equals(b(i.pkcs8)), 'key')
      return { scalar }
    },
  },
  item: { seal, open },
  padme: {
    size: (i) => {
      const { padded, ciphertext } = items.sizes(Number(i.length))
      return { padded: String(padded), ciphertext: String(ciphertext) }
    },
  },
  capsule: {
    seal,
    open,
    'author-seal': (i) => items.seal(b(i.A), slotOf(i), BigInt(i.version), b(i.value), b(i.random)),
  },
  rotate: {
    open,
    rotate: (i) => {
      const s = slotOf(i)
      const next = { ...s, epoch: BigInt(i.next_epoch) }
      const key = keys.fieldKey(b(i.root), next)
      const leaf = items.rotate(keys.fieldKey(b(i.root), s), s, b(i.leaf), key, next.epoch, b(i.random))
      return { leaf, value: items.open(key, next, leaf, b(i.ciphertext)) }
    },
  },
  leaf: {
    parse: (i) => {
      const l = items.parseLeaf(b(i.leaf))
      demand(items.encodeLeaf(l).equals(b(i.leaf)), 'malformed')
      return { ...l, ciphertext_hash: l.ciphertextHash, leaf_hash: leafHash(b(i.leaf)) }
    },
  },
  merkle: {
    tree: (i) => {
      const { root, proofs } = items.tree(i.leaves.map(b))
      return { root, proofs }
    },
    verify: (i) => {
      verifyPath(leafHash(b(i.leaf)), BigInt(i.index), BigInt(i.size), i.path.map(b), b(i.root))
      return {}
    },
  },
  reencrypt: {
    decompress: (i) => ({ point: p256.decompress(b(i.capsule).subarray(0, 33)) }),
    'check-point': (i) => {
      grants.checkPoint(b(i.capsule), b(i.point))
      return {}
    },
    reencrypt: (i) => ({ x: grants.reencrypt(b(i.pkcs8), b(i.capsule)) }),
    open: (i) =>
      grants.openReleased({
        readerSeed: readerSeedOf(i),
        ct: b(i.ct),
        grant: b(i.grant),
        owner: b(i.owner),
        reader: b(i.reader),
        leaf: b(i.leaf),
        ciphertext: b(i.ciphertext),
        x: b(i.x),
      }),
  },
  'grant-kem': {
    'reader-key': (i) => ({ seed: readerSeedOf(i), public: publicKey(readerSeedOf(i)) }),
    grant,
    encapsulate: (i) => encapsulate(b(i.public)),
    decapsulate: (i) => ({ ss: decapsulate(readerSeedOf(i), b(i.ct)) }),
  },
  'hpke-import': {
    'import-info': (i) => ({ info: grants.importInfo(b(i.vault), b(i.grant_hash), i.field, BigInt(i.epoch), b(i.author)) }),
    'write-info': (i) => ({ info: grants.writeInfo(b(i.vault), b(i.grant), b(i.owner), b(i.writer), i.fields.map(b), i.epochs.map(b)) }),
    'message-info': (i) => ({ info: grants.messageInfo(i.type, b(i.from), b(i.to)) }),
    open: (i) => {
      const plaintext = hpkeOpen(b(i.seed), b(i.info), b(i.blob))
      if (i.random) demand(hpkeSeal(b(i.public), b(i.info), plaintext, b(i.random)).equals(b(i.blob)), 'open', 'sealed again it is another blob')
      return { plaintext }
    },
  },
  'session-key': { open: (i) => openSealed(i, 'answer'), 'open-evidence': (i) => openSealed(i, 'evidence') },
  evidence: {
    evidence: (i) => log.openEvidence(given(i, 'answer'), i.log_name, b(i.log_key)),
  },
  answer: {
    parse: (i) => {
      const a = sessions.parseAnswer(b(i.answer))
      demand(sessions.writeAnswer(a).equals(b(i.answer)), 'malformed')
      return a
    },
  },
  login: {
    answer: (i) => {
      const answer = login.answer(b(i.seed), loginChallenge(i))
      const { ct, ss } = encapsulate(b(i.public), b(i.random))
      demand(ct.equals(b(i.ct)), 'malformed', 'encapsulated again it is another ct')
      return { answer, key: login.challengeKey(ss), ss }
    },
    verify: (i) => {
      login.verify(encapsulate(b(i.public), b(i.random)).ss, loginChallenge(i), b(i.answer))
      return {}
    },
  },
  'composite-signature': {
    'composite-verify': (i) => {
      const message = envelopes.pae(i.type, b(i.payload))
      envelopes.compositeVerify(b(i.public), message, envelopes.context(i.type), b(i.signature))
      if (i.seed) {
        const key = envelopes.compositeKey(b(i.seed).subarray(0, 32), b(i.seed).subarray(32))
        demand(key.public.equals(b(i.public)), 'key', 'the seed gives another key')
      }
      return { message, representative: envelopes.representative(message, envelopes.context(i.type)) }
    },
  },
  dsse: {
    envelope: (i) => {
      const bytes = given(i, 'envelope')
      const e = envelopes.read(bytes)
      envelopes.verify(e, b(i.public))
      documents.decodePayload('manifest', e.payload)
      return { ...opened(e), type: e.type }
    },
  },
  password: {
    curve: (i) => ({ point: password.hashToCurve(b(i.message), b(i.domain)) }),
    password: (i) => {
      const { point, r, blinded } = password.blind(b(i.account), b(i.password), b(i.random))
      const answer = password.evaluate(b(i.k), blinded)
      const keys = password.finish(b(i.account), b(i.password), r, answer, b(i.salt))
      return { ...keys, point, blinded, answer, wrapped: password.wrap(keys.key, b(i.account), b(i.secret), b(i.nonce)) }
    },
    answer: (i) => password.finish(b(i.account), b(i.password), password.blind(b(i.account), b(i.password), b(i.random)).r, b(i.answer), b(i.salt)),
    kit: (i) => {
      const kit = password.kit(i.text)
      const { key, proof, verifier } = password.kitKeys(b(i.account), kit)
      return { text: password.sheet(kit), proof, verifier, wrapped: password.wrap(key, b(i.account), b(i.secret), b(i.nonce)) }
    },
  },
  invitation: {
    token: (i) => {
      const made = invitations.invite(b(i.root), b(i.reader), i.reference, BigInt(i.expires))
      return { ...made, link: links.makeLink('invite', { reader: i.reader, token: made.token.toString('base64url') }) }
    },
    open: (i) => invitations.open(b(i.root), b(i.reader), b(i.token)),
    link: (i) => {
      const { kind, reader, token } = links.parseLink(i.link)
      demand(kind === 'invite', 'malformed', 'another kind of link')
      return { reader, token: links.tokenOf(token), invitation: sha256(links.tokenOf(token)) }
    },
  },
  guardrails: {
    vet: (i) => ({ names: String(guardrails.vet(i.rules).length) }),
    refusals: (i) => ({
      refusals: guardrails.refusals(i.rules, {
        ...i,
        notBefore: Number(i.not_before),
        expires: Number(i.expires),
        items: Number(i.items),
        usedToday: Number(i.used_today),
        decided: Number(i.decided),
      }),
    }),
  },
  'document-receipt': {
    receipt: (i) => {
      const { kind, outcome, time } = log.openReceipt(given(i, 'receipt'), i.vault, i.document, i.log_name, b(i.log_key))
      return { kind, outcome, time }
    },
  },
  checkpoint: {
    published: (i) => {
      const keys = { log: { name: i.log_name, key: b(i.log_key) }, host: { name: i.host_name, key: b(i.host_key) } }
      return log.openPublished(given(i, 'checkpoint').toString(), { ...keys, witnesses: i.witnesses, need: Number(i.need) })
    },
  },
  'document-entry': {
    entry: (i) => {
      const entry = log.parseEntry(b(i.leaf))
      demand(log.encodeEntry(entry).equals(b(i.leaf)), 'malformed')
      log.openEntry(entry, b(i.salt), Buffer.from(i.details))
      return entry
    },
  },
}
for (const type of ['identity', 'vault', 'relationship', 'manifest', 'grant', 'revocation', 'session', 'read', 'evidence', 'audit-query', 'closure', 'succession', 'succession-notice', 'suspension', 'renunciation', 'voucher', 'guardrails', 'domain-statement', 'invitation-answer'])
  operations[`document-${type}`] = documentOperations

/** plain makes an output comparable with a vector's: Buffers as hexadecimal, integers as decimal text. */
export const plain = (v) => {
  if (Buffer.isBuffer(v)) return v.toString('hex')
  if (typeof v === 'bigint') return v.toString()
  if (Array.isArray(v)) return v.map(plain)
  if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plain(x)]))
  return v
}
