// Section 19 of the specification, "Guardrails": which rules may be in force, and which of them refuse a use. The language is read and decided by Cedar itself, in Rust.

import { readFileSync } from 'node:fs'
import * as cedar from '@cedar-policy/cedar-wasm/nodejs'
import { demand } from './encodings.js'

const MAX_RULES = 32768
const schema = readFileSync(new URL('../../../policies/guardrails/guardrails.cedarschema', import.meta.url), 'utf8')

/** policies are the texts of the rules in their order. Cedar gives them sorted by "policy0", "policy1", "policy10" and so on. */
const policies = (text) => {
  const parts = cedar.policySetTextToParts(text)
  demand(parts.type === 'success' && parts.policy_templates.length === 0, 'malformed', 'no Cedar, or a template')
  const sorted = parts.policies.map((_, i) => i).sort((a, b) => (`policy${a}` < `policy${b}` ? -1 : 1))
  const out = []
  sorted.forEach((place, i) => (out[place] = parts.policies[i]))
  return out
}

const depth = (text) => {
  let open = 0
  let most = 0
  for (const c of text) {
    if ('([{'.includes(c)) most = Math.max(most, ++open)
    if (')]}'.includes(c)) open = Math.max(0, open - 1)
  }
  return most
}

/** plain reports whether no five signs stand in a row, and 64 has at most, none before a name with a dot behind it; texts and comments aside. */
const plain = (text) => {
  const bare = text.replace(/"(\\.|[^"\\])*"|\/\/[^\n]*/g, (s) => (s[0] === '"' ? '""' : ' '))
  return !/([!-]\s*){5}/.test(bare) && (bare.match(/\bhas(Tag)?\b/g) ?? []).length <= 64 && !/\bhas\s+\w+\s*\./.test(bare)
}

/** rules reads a text: of each rule its name and its own text. */
export const rules = (text) => {
  demand(Buffer.byteLength(text) <= MAX_RULES && depth(text) <= 64, 'malformed', 'too long or too deep')
  demand(!/\\[ux]/.test(text) && plain(text), 'malformed', 'a character by its number, five signs in a row, or too much has')
  const all = policies(text)
  demand(all.length <= 256, 'malformed', 'too many rules')
  const named = all.map((policy) => {
    const { type, json } = cedar.policyToJson(policy)
    demand(type === 'success' && json.effect === 'forbid', 'malformed', 'a rule that permits')
    const name = json.annotations?.id ?? ''
    demand(/^[A-Za-z0-9._-]{1,64}$/.test(name), 'malformed', 'a rule without a name')
    return { name, policy }
  })
  demand(new Set(named.map((r) => r.name)).size === named.length, 'malformed', 'one name twice')
  return named
}

const set = (named) => ({ staticPolicies: Object.fromEntries(named.map(({ name, policy }) => [name, policy])) })

/** vet refuses rules that may not be in force. */
export const vet = (text) => {
  const named = rules(text)
  const found = cedar.validate({ schema, policies: set(named), validationSettings: { mode: 'strict' } })
  demand(found.type === 'success' && found.validationErrors.length === 0, 'malformed', JSON.stringify(found.validationErrors))
  return named.map((r) => r.name)
}

const LAST_SECOND = 253402300799 // of the year 9999; a later time counts as that

const moment = (ms) => ({ __extn: { fn: 'datetime', arg: new Date(ms).toISOString() } })

/** refusals are the names of the rules that stand against a use, in their order. */
export const refusals = (text, use) => {
  const named = rules(text)
  const principal = { type: 'Reader', id: use.reader }
  const resource = { type: 'Field', id: use.field }
  const above = [...use.field].flatMap((c, i) => (i > 0 && './'.includes(c) ? [{ type: 'Field', id: use.field.slice(0, i) }] : []))
  const answer = cedar.isAuthorized({
    principal,
    action: { type: 'Action', id: 'read' },
    resource,
    context: {
      owner: { __entity: { type: 'Owner', id: use.owner } },
      written: use.owner !== use.author,
      purpose: use.purpose,
      custody: use.custody,
      grade: use.grade,
      token: use.token,
      granted: moment(Math.min(use.notBefore, LAST_SECOND) * 1000),
      expires: moment(Math.min(use.expires, LAST_SECOND) * 1000),
      items: use.items,
      used_today: use.usedToday,
      time: moment(use.decided),
      weekday: new Date(use.decided).getUTCDay() || 7,
    },
    policies: { staticPolicies: { ...set(named).staticPolicies, '+': 'permit (principal, action, resource);' } },
    entities: [
      { uid: principal, attrs: { vouched: use.vouched }, parents: [] },
      { uid: resource, attrs: {}, parents: above },
    ],
  })
  if (answer.type !== 'success') throw new Error(JSON.stringify(answer.errors))
  const { decision, diagnostics } = answer.response
  const against = new Set(diagnostics.errors.map((e) => e.policyId))
  if (decision === 'deny') for (const id of diagnostics.reason) against.add(id)
  return named.map((r) => r.name).filter((name) => against.has(name))
}
