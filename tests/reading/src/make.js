// A whole world, made afresh: an owner, a reader, a vault document, and every kind of document between them, for another
// reading to open. Only what a vault keeps secret comes from outside.

import { randomBytes } from 'node:crypto'
import { demand, sha256 } from './encodings.js'
import { identityMembers, makeDocument } from './documents.js'
import * as envelopes from './envelopes.js'
import * as grants from './grants.js'
import * as items from './items.js'
import * as keys from './keys.js'
import * as links from './links.js'
import * as login from './login.js'
import * as sessions from './sessions.js'
import { write } from './json.js'
import { parseValue } from './values.js'
import { encapsulate, publicKey } from './xwing.js'

const b = (text) => Buffer.from(text, 'hex')
const id = () => randomBytes(32).toString('hex')

/** The vault document of a ceremony of our own. Section 4. */
const vaultDocument = (i, time, vault) => {
  const ceremony = envelopes.compositeKey(randomBytes(32), randomBytes(32))
  const token = {
    serial: '0123456789abcdef',
    label: 'sallyport',
    model: 'SoftHSM v2',
    grade: 'unproven',
    import_keys: [{ custody: 'resident', path: 'oaep-direct', oaep_hash: i.oaep_hash, public_key: b(i.import_key) }],
  }
  const made = makeDocument(
    'vault',
    time,
    {
      vault,
      version: 3n,
      ceremony_key: ceremony.public,
      tokens: [token],
      log_key: { name: 'vault.example/sallyport', algorithm: 'Ed25519', public_key: b(i.log_key) },
      log_host_key: { name: 'vault.example/sallyport/host', algorithm: 'ML-DSA-44', public_key: b(i.log_host_key) },
      import_hpke_key: b(i.import_hpke_key),
      session_kem_key: b(i.session_kem_key),
      dev_mode: false,
    },
    ceremony
  )
  const hash = sha256(ceremony.public).toString('hex')
  const join = links.makeLink('join', { vault, ceremony: hash, storefront: 'https://store.example:443/', owners: 'https://vault.example/' })
  return { made, token, ceremony: hash, join }
}

/** world makes one of everything: sections 2 to 8 and 10. */
export const world = (i) => {
  const time = BigInt(i.time)
  const vault = id()
  const v = vaultDocument(i, time, vault)

  const owner = keys.identityKeys(randomBytes(32))
  const reader = keys.identityKeys(randomBytes(32))
  const ownerIdentity = makeDocument('identity', time, identityMembers('person', '', owner), owner.signing)
  const readerIdentity = makeDocument('identity', time, identityMembers('business', 'Bäckerei Übermut GmbH', reader), reader.signing)
  const ownerID = ownerIdentity.hash.toString('hex')
  const readerID = readerIdentity.hash.toString('hex')

  const nonce = randomBytes(16)
  const readerSeed = keys.readerSeed(reader.root, ownerIdentity.hash, nonce)
  const relationship = makeDocument(
    'relationship',
    time,
    { aud: vault, reader: readerID, owner: ownerID, kem_key: publicKey(readerSeed), nonce: nonce.toString('hex') },
    reader.signing
  )

  const values = Object.fromEntries(i.fields.map((field, n) => [field, randomBytes(n * 37)]))
  const sealed = i.fields.map((field, n) => {
    const s = { owner: ownerIdentity.hash, field, epoch: BigInt(n + 1), author: ownerIdentity.hash }
    return { ...items.seal(items.authorKey(keys.fieldKey(owner.root, s)), s, BigInt(n + 1), values[field]), s }
  })
  const first = sealed[0]
  const later = { ...first.s, epoch: first.s.epoch + 1n }
  const rotated = items.rotate(keys.fieldKey(owner.root, first.s), first.s, first.leaf, keys.fieldKey(owner.root, later), later.epoch)

  const { root, leaves } = items.tree(sealed.map((x) => x.leaf))
  const link = { aud: vault, owner: ownerID }
  const manifest = makeDocument(
    'manifest',
    time,
    { ...link, author: ownerID, seq: 1n, prev: ownerID, version: 1n, prev_manifest: '00'.repeat(32), tree_size: BigInt(leaves.length), root: root.toString('hex') },
    owner.signing
  )

  const { ct, ss } = encapsulate(publicKey(readerSeed))
  const grantID = id()
  const wrapped = sealed.map(({ s }) => {
    const rk = grants.reencryptionKey(keys.fieldKey(owner.root, s), grants.grantScalar(ss, b(grantID), readerIdentity.hash, s))
    return { s, ...grants.wrap(rk, v.token, grants.importKey(v.token, 'resident')) }
  })
  const grant = makeDocument(
    'grant',
    time,
    {
      id: grantID,
      ...link,
      seq: 2n,
      prev: manifest.hash.toString('hex'),
      reader: readerID,
      relationship: relationship.hash.toString('hex'),
      custody: 'resident',
      rights: ['read'],
      purpose: 'delivery',
      not_before: time,
      expires: time + 86400n,
      limits: { reads_per_day: 100n },
      ct,
      fields: wrapped.map(({ s, entry }) => ({ field: s.field, epoch: s.epoch, author: ownerID, keys: [entry] })),
    },
    owner.signing
  )
  const imports = wrapped.map(({ s, wrapped: w }) => ({
    field: s.field,
    sealed: grants.sealImport(b(i.import_hpke_key), grants.importInfo(b(vault), grant.hash, s.field, s.epoch, s.author), w),
    key_id: grants.keyID(b(grantID), s.field, s.author),
  }))
  const revocation = makeDocument(
    'revocation',
    time,
    { ...link, seq: 3n, prev: grant.hash.toString('hex'), items: [{ grant: grantID, field: i.fields[0], author: ownerID }], reason: 'withdrawn' },
    owner.signing
  )

  const sessionKey = envelopes.ed25519Key(randomBytes(32))
  const opened = encapsulate(b(i.session_kem_key))
  const session = makeDocument(
    'session',
    time,
    { aud: vault, reader: readerID, key: sessionKey.public, not_before: time, expires: time + 600n, ct: opened.ct },
    reader.signing
  )
  const read = makeDocument(
    'read',
    time,
    {
      aud: vault,
      session: session.hash.toString('hex'),
      nonce: randomBytes(16).toString('hex'),
      expires: time + 60n,
      purpose: 'delivery',
      items: i.fields.map((field, n) => ({ owner: ownerID, field, author: n % 2 ? ownerID : undefined, known: n === 0 ? 7n : undefined })),
    },
    sessionKey
  )
  const evidence = makeDocument(
    'evidence',
    time,
    { aud: vault, session: session.hash.toString('hex'), nonce: randomBytes(16).toString('hex'), expires: time + 120n, before: (1n << 53n) + 1n, limit: 7n },
    sessionKey
  )
  const query = makeDocument(
    'audit-query',
    time,
    { aud: vault, auditor: readerID, nonce: randomBytes(16).toString('hex'), expires: time + 60n, count: 300n, what: 'entries' },
    reader.signing
  )
  const message = { type: 'consent', plaintext: randomBytes(100) }

  return {
    vault,
    ceremony: v.ceremony,
    owner_root: owner.root,
    reader_root: reader.root,
    nonce,
    values,
    documents: {
      vault: v.made.bytes,
      owner: ownerIdentity.bytes,
      reader: readerIdentity.bytes,
      relationship: relationship.bytes,
      manifest: manifest.bytes,
      grant: grant.bytes,
      revocation: revocation.bytes,
      session: session.bytes,
      read: read.bytes,
      evidence: evidence.bytes,
      'audit-query': query.bytes,
    },
    leaves,
    ciphertexts: Object.fromEntries(sealed.map((x) => [x.s.field, x.ciphertext])),
    rotated,
    imports,
    author_key: items.authorKey(keys.fieldKey(owner.root, first.s)),
    K: sessions.sessionKey(opened.ss, b(vault), readerIdentity.hash, session.hash),
    message: { ...message, blob: grants.sealMessage(reader.kemKey, message.type, ownerIdentity.hash, readerIdentity.hash, message.plaintext) },
    join: v.join,
    contacts: [links.makeLink('owner', { id: ownerID, nonce: nonce.toString('hex') }), links.makeLink('reader', { id: readerID })],
  }
}

const challengeOf = (i) => ({ server: i.server, subject: b(i.subject), ct: b(i.ct), nonce: b(i.nonce), freshKey: b(i.fresh_key) })

/** The making halves of exchanges whose other half comes from outside. */
export const making = {
  world,
  /** A storefront's challenge to a login key. Section 8. */
  challenge: (i) => {
    const { ct, ss } = encapsulate(b(i.public))
    return { ct, ss }
  },
  'verify-login': (i) => {
    login.verify(b(i.ss), challengeOf(i), b(i.answer))
    return {}
  },
  'answer-login': (i) => ({ answer: login.answer(b(i.seed), challengeOf(i)) }),
  /** An HTTP request signed with a fresh key. Section 8. */
  'signed-request': (i) => {
    const key = envelopes.ed25519Key(randomBytes(32))
    const request = { method: i.method, authority: i.authority, path: i.path, query: i.query, body: b(i.body) }
    return { key: key.public, headers: login.signRequest(key, i.login, BigInt(i.time), request) }
  },
  /** Answers under K, both ways. Section 7. */
  'seal-answer': (i) => ({ answer: sessions.sealAnswer(b(i.K), b(i.request), b(i.plaintext)) }),
  'open-evidence': (i) => ({ plaintext: sessions.openAnswer(b(i.K), b(i.request), b(i.answer), 'evidence') }),
  'open-answer': (i) => ({ plaintext: sessions.openAnswer(b(i.K), b(i.request), b(i.answer)) }),
  value: (i) => ({ value: write(parseValue(b(i.value))) }),
  link: (i) => {
    const link = links.parseLink(i.link)
    demand(!i.kinds || i.kinds.includes(link.kind), 'malformed', 'another kind of link')
    return link
  },
}
