// Every case of every file in tests/vectors, and no file without a handler.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { Refusal } from '../src/encodings.js'
import { operations, plain } from '../src/operations.js'

const folder = new URL('../../vectors/', import.meta.url)
const files = readdirSync(folder).filter((name) => name.endsWith('.json'))

test('there is a file for each handler and a handler for each file', () => {
  assert.deepEqual(files.map((name) => name.replace(/\.json$/, '')).sort(), Object.keys(operations).sort())
})

const run = (work, input) => {
  try {
    return { expect: 'ok', out: plain(work(input)) }
  } catch (e) {
    if (e instanceof Refusal) return { expect: e.kind, why: e.message }
    throw e
  }
}

for (const name of files) {
  test(name, async (t) => {
    const { cases } = JSON.parse(readFileSync(new URL(name, folder), 'utf8'))
    assert.ok(cases.length > 0, 'no cases')
    for (const c of cases)
      await t.test(`${c.operation}: ${c.description}`, () => {
        const work = operations[name.replace(/\.json$/, '')]?.[c.operation]
        assert.ok(work, `no handler for the operation ${c.operation}`)
        const got = run(work, c.in)
        assert.equal(got.expect, c.expect, got.why)
        for (const [key, value] of Object.entries(c.out ?? {})) assert.deepEqual(got.out[key], value, key)
      })
  })
}
