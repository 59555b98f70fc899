// An owner, a reader and their dealings with a storefront, put together from the sections: enrolment and login (4, 8), publishing
// (5), granting (6), revoking (4), sessions and reads (7). Nobody here opens a connection: `http` carries a request and gives
// { status, body }, so that a program whose TLS has X25519MLKEM768 can carry them.

import { randomBytes } from 'node:crypto'
import { demand } from './encodings.js'
import { parse, write } from './json.js'
import * as documents from './documents.js'
import * as envelopes from './envelopes.js'
import * as grants from './grants.js'
import * as items from './items.js'
import * as keys from './keys.js'
import * as links from './links.js'
import * as log from './log.js'
import * as login from './login.js'
import * as sessions from './sessions.js'
import { parseValue, textValue } from './values.js'
import { encapsulate, publicKey } from './xwing.js'

const ZEROES = '00'.repeat(32)
const now = () => BigInt(Math.floor(Date.now() / 1000))
const b = (text) => Buffer.from(text, 'hex')
const raw = (value) => Buffer.from(write(value))

/** A Party is an identity with a login at one storefront, which it trusts for availability alone. */
class Party {
  /** @param {'person'|'business'} kind @param {string} join the link that pins the vault */
  constructor(kind, name, join, http) {
    this.kind = kind
    this.name = name
    this.pin = links.parseLink(join)
    this.http = http
    this.keys = keys.identityKeys(randomBytes(32))
    this.authority = new URL(this.pin.storefront).host.toLowerCase()
  }

  /** One request, signed with the login's key once there is one. Section 8. */
  async call(method, target, body = Buffer.alloc(0)) {
    const url = new URL(target, this.pin.storefront)
    const request = { method, authority: this.authority, path: url.pathname, query: url.search, body }
    const headers = this.login ? login.signRequest(this.login.key, this.login.id, now(), request) : {}
    const answer = await this.http({ method, url: url.href, headers, body })
    demand(answer.status >= 200 && answer.status < 300, 'refused', `${method} ${target}: ${answer.status} ${answer.body}`)
    return answer.body
  }

  /** A receipt for a document, or a refusal. Section 9. */
  receipt(body, hash) {
    const { log_key: key } = this.vault
    return log.openReceipt(body, this.pin.vault, hash.toString('hex'), key.name, key.public_key)
  }

  /** Pins the vault, enrols, logs in. Sections 4 and 8. */
  async join() {
    const pin = { vault: this.pin.vault, ceremony: this.pin.ceremony, newest: 0n }
    this.vault = documents.openVault(await this.call('GET', '/v1/vault'), pin).document
    const identity = documents.makeDocument('identity', now(), documents.identityMembers(this.kind, this.name, this.keys), this.keys.signing)
    this.id = identity.hash
    this.receipt(await this.call('POST', '/v1/identities', identity.bytes), this.id)

    const key = envelopes.ed25519Key(randomBytes(32))
    const asked = await this.call('POST', '/v1/logins/challenges', raw({ subject: this.id.toString('hex'), key: key.public }))
    const challenge = parse(asked)
    const proof = login.answer(this.keys.loginSeed, {
      server: this.authority,
      subject: this.id,
      ct: Buffer.from(challenge.get('ct'), 'base64'),
      nonce: b(challenge.get('nonce')),
      freshKey: key.public,
    })
    const answered = parse(await this.call('POST', '/v1/logins', raw({ id: challenge.get('id'), proof })))
    this.login = { id: answered.get('id'), key }
    return { id: this.id.toString('hex') }
  }

  /** The verified identity of an id that came from outside the storefront. Section 4. */
  async identity(id) {
    const { document, hash } = documents.openIdentity(await this.call('GET', `/v1/identities/${id}`))
    demand(hash.toString('hex') === id, 'proof', 'another identity')
    return document
  }

  header() {
    return { aud: this.pin.vault }
  }
}

/** An Owner publishes, grants and revokes. */
export class Owner extends Party {
  constructor(join, http) {
    super('person', '', join, http)
    this.chain = { seq: 0n }
    this.manifest = { version: 0n, hash: ZEROES }
    this.items = new Map() // field: { leaf, ciphertext, epoch, version }
    this.grants = []
    this.nonces = new Map()
  }

  /** The code for a reader: who the owner is, and a nonce of the owner's. Section 10. */
  code({ reader }) {
    const nonce = randomBytes(16).toString('hex')
    this.nonces.set(links.parseLink(reader).id, nonce)
    return { code: links.makeLink('owner', { id: this.id.toString('hex'), nonce }) }
  }

  slot(field, epoch) {
    return { owner: this.id, field, epoch, author: this.id }
  }

  /** Signs the next link of the owner's chain, submits it, and takes it for done when the receipt is verified. Section 4. */
  async link(type, path, members, submission) {
    const link = { seq: this.chain.seq + 1n, prev: this.chain.seq === 0n ? this.id.toString('hex') : this.chain.hash }
    const made = documents.makeDocument(type, now(), { ...this.header(), owner: this.id.toString('hex'), ...link, ...members }, this.keys.signing)
    const envelope = parse(made.bytes)
    const body = raw(submission(envelope, made))
    this.receipt(await this.call('POST', `/v1/owners/${this.id.toString('hex')}/${path}`, body), made.hash)
    this.chain = { seq: link.seq, hash: made.hash.toString('hex') }
    return made
  }

  /** Publishes values, text by field, as new versions. Section 5. */
  async publish(values) {
    const changed = []
    for (const [field, value] of Object.entries(values)) {
      const before = this.items.get(field) ?? { epoch: 1n, version: 0n }
      const s = this.slot(field, before.epoch)
      const made = items.seal(items.authorKey(keys.fieldKey(this.keys.root, s)), s, before.version + 1n, textValue(value))
      this.items.set(field, { ...before, version: before.version + 1n, leaf: made.leaf })
      changed.push({ leaf: made.leaf, ciphertext: made.ciphertext })
    }
    await this.advance(changed)
    return {}
  }

  /** Moves a field into the next epoch: the same DEK, a fresh capsule, no ciphertext. Section 5. */
  async rotate({ field }) {
    const item = this.items.get(field)
    const next = this.slot(field, item.epoch + 1n)
    const s = this.slot(field, item.epoch)
    item.leaf = items.rotate(keys.fieldKey(this.keys.root, s), s, item.leaf, keys.fieldKey(this.keys.root, next), next.epoch)
    item.epoch = next.epoch
    await this.advance([{ leaf: item.leaf }])
    return {}
  }

  async advance(changed) {
    const { root, leaves } = items.tree([...this.items.values()].map((i) => i.leaf))
    const version = this.manifest.version + 1n
    const members = { author: this.id.toString('hex'), version, prev_manifest: this.manifest.hash, tree_size: BigInt(leaves.length), root: root.toString('hex') }
    const made = await this.link('manifest', 'manifests', members, (manifest) => ({ manifest, items: changed }))
    this.manifest = { version, hash: made.hash.toString('hex') }
  }

  /** Grants fields to the reader of a contact code who answered with the owner's nonce. Section 6. */
  async grant({ reader: code, fields, custody, purpose, seconds }) {
    const reader = links.parseLink(code).id
    const relationship = await this.relationship(reader)
    const { ct, ss } = encapsulate(relationship.document.kem_key)
    const id = randomBytes(32).toString('hex')
    const wrappedKeys = []
    const granted = fields.map((field) => {
      const s = this.slot(field, this.items.get(field).epoch)
      const rk = grants.reencryptionKey(keys.fieldKey(this.keys.root, s), grants.grantScalar(ss, b(id), b(reader), s))
      const entries = this.vault.tokens.map((token) => {
        const { wrapped, entry } = grants.wrap(rk, token, grants.importKey(token, custody))
        wrappedKeys.push({ s, token: token.serial, wrapped })
        return entry
      })
      return { field, epoch: s.epoch, author: this.id.toString('hex'), keys: entries }
    })
    const members = {
      id,
      reader,
      relationship: relationship.hash.toString('hex'),
      custody,
      rights: ['read'],
      purpose,
      not_before: now(),
      expires: now() + BigInt(seconds),
      limits: {},
      ct,
      fields: granted,
    }
    await this.link('grant', 'grants', members, (envelope, made) => ({
      envelope,
      keys: wrappedKeys.map(({ s, token, wrapped }) => {
        const info = grants.importInfo(b(this.pin.vault), made.hash, s.field, s.epoch, s.author)
        return { field: s.field, author: s.author.toString('hex'), token, sealed: grants.sealImport(this.vault.import_hpke_key, info, wrapped) }
      }),
    }))
    this.grants.push({ id, fields })
    return { grant: id }
  }

  /** The newest relationship of a reader that repeats the owner's nonce and is signed by the reader. Section 4. */
  async relationship(reader) {
    const { signing_key: key } = await this.identity(reader)
    const list = parse(await this.call('GET', `/v1/relationships?with=${reader}`))
    const found = list.get('envelopes').map((e) => documents.open(raw(e), 'relationship', key))
    const fit = found.filter(({ document: d }) => d.reader === reader && d.owner === this.id.toString('hex') && d.aud === this.pin.vault && d.nonce === this.nonces.get(reader))
    demand(fit.length > 0, 'proof', 'no relationship')
    return fit.at(-1)
  }

  /** Ends all fields of a grant. Section 4. */
  async revoke({ grant }) {
    const { fields } = this.grants.find((g) => g.id === grant)
    const list = fields.map((field) => ({ grant, field, author: this.id.toString('hex') }))
    await this.link('revocation', 'revocations', { items: list, reason: 'withdrawn' }, (envelope) => ({ envelope }))
    return {}
  }
}

/** A Reader reads what it was granted. */
export class Reader extends Party {
  constructor(name, join, http) {
    super('business', name, join, http)
    this.owners = new Map() // id: { seed, identity, seen }
  }

  code() {
    return { code: links.makeLink('reader', { id: this.id.toString('hex') }) }
  }

  /** Answers an owner's code with a relationship. Sections 2 and 4. */
  async connect({ code }) {
    const { id: owner, nonce } = links.parseLink(code)
    const seed = keys.readerSeed(this.keys.root, b(owner), b(nonce))
    const members = { ...this.header(), reader: this.id.toString('hex'), owner, kem_key: publicKey(seed), nonce }
    await this.call('POST', '/v1/relationships', documents.makeDocument('relationship', now(), members, this.keys.signing).bytes)
    this.owners.set(owner, { seed, identity: await this.identity(owner), seen: { manifest: 0n, items: new Map() } })
    return {}
  }

  /** Opens a session: a delegation to a fresh key, and K with the vault. Section 7. */
  async session() {
    const { ct, ss } = encapsulate(this.vault.session_kem_key)
    const key = envelopes.ed25519Key(randomBytes(32))
    const members = { ...this.header(), reader: this.id.toString('hex'), key: key.public, not_before: now(), expires: now() + 600n, ct }
    const made = documents.makeDocument('session', now(), members, this.keys.signing)
    this.receipt(await this.call('POST', '/v1/sessions', made.bytes), made.hash)
    return { hash: made.hash, key, K: sessions.sessionKey(ss, b(this.pin.vault), this.id, made.hash) }
  }

  /** Reads fields of one owner; gives { field: value or the code of the refusal }. Section 7, and what a reader MUST check. */
  async read({ owner, fields, purpose }) {
    this.open ??= await this.session()
    const asked = fields.map((field) => ({ owner, field }))
    const members = { ...this.header(), session: this.open.hash.toString('hex'), nonce: randomBytes(16).toString('hex'), expires: now() + 60n, purpose, items: asked }
    const request = documents.makeDocument('read', now(), members, this.open.key)
    const result = parse(await this.call('POST', '/v1/reads', raw({ request: parse(request.bytes) })))
    const answer = sessions.parseAnswer(sessions.openAnswer(this.open.K, request.hash, Buffer.from(result.get('answer'), 'base64')))
    demand(answer.items.length === fields.length && result.get('items').length === fields.length, 'proof', 'another number of items')

    const from = this.owners.get(owner)
    const byHash = new Map()
    for (const envelope of result.get('documents') ?? []) {
      const opened = documents.open(raw(envelope), null, from.identity.signing_key)
      byHash.set(opened.hash.toString('hex'), opened)
    }
    return Object.fromEntries(fields.map((field, i) => [field, this.value(from, { owner, field, author: ZEROES }, answer.items[i], result.get('items')[i], byHash)]))
  }

  /** One item of an answer, checked and opened. Sections 6 and 7. */
  value(from, asked, answered, sent, byHash) {
    if (answered.outcome !== 'released') return { refused: answered.outcome }
    const manifest = byHash.get(answered.head.toString('hex'))
    const grant = byHash.get(sent.get('grant'))
    demand(manifest?.document.type === 'manifest' && grant?.document.type === 'grant', 'proof', 'no manifest or grant')
    const leaf = Buffer.from(sent.get('leaf'), 'base64')
    const proof = { leaf, index: sent.get('proof').get('index'), path: (sent.get('proof').get('path') ?? []).map(b) }
    const { manifest: highest, items: seen } = from.seen
    const found = sessions.checkItem(asked, answered, proof, manifest, { manifest: highest, item: seen.get(asked.field) ?? 0n })
    const { value } = grants.openReleased({
      readerSeed: from.seed,
      ct: grant.document.ct,
      grant: b(grant.document.id),
      owner: b(asked.owner),
      reader: this.id,
      leaf,
      ciphertext: Buffer.from(sent.get('ciphertext'), 'base64'),
      x: answered.x,
    })
    from.seen.manifest = manifest.document.version
    seen.set(asked.field, found.version)
    return { value: parseValue(value).text, version: found.version }
  }
}
