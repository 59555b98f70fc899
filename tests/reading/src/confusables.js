// Which characters have a key of a name, and which have none: section 16, "Looking alike". Made from the `confusables.txt` of Unicode 13.0.0 by what that section says, a character at a time,
// because skeletons and keys of a text are those of its characters one after the other: here is what of it the form of a voucher needs, not the keys themselves.

const set = (ranges) => {
  const all = new Set()
  for (const range of ranges.trim().split(/\s+/)) {
    const [from, to = from] = range.split('-').map((digits) => Number.parseInt(digits, 16))
    for (let c = from; c <= to; c++) all.add(String.fromCodePoint(c))
  }
  return all
}

/** Letters and marks that look like punctuation: their skeletons have no letter, digit or mark. */
const EMPTY = set(
  '1c3 294 2b9-2be 2c6 2c8 2ca-2cb 2d0 2ee 374 5d9 5f2 660 6f0 7f4-7f5 7fa 903 97d a83 1427 1433 1437-1438 1440-1441 1444-1445 144a 16b2 16cc 2d48 2d51 ' +
  '2d63 3033 304f 30ce 4e36 4e3f a4f8-a4fb a4fd a778 a78b-a78c a78f 1029b 1031f 16f3f 16f51-16f52 1d16d 21fe8 ',
)

/** Others whose skeletons have one. */
const KEYED = set(
  '25 7c a2 a5 af d7 2d3 2d8-2d9 2db 375 385 5c0 609-60a 60f 66a 6fd-6fe bf0 bf2 bf4 bf7-bf8 bfa d5a d76 d79 f02-f03 fd5-fd6 109e 166d-166e 16f0 17d4 ' +
  '1b5c 1fc1 1fcd-1fcf 1fdd-1fdf 1fed-1fee 2014-2016 2030-2031 203e 2052 205d-205e 2070 2079 20a1 20a5 20a8-20a9 20ab-20ae 20b6 20bd 2100-2101 2103 ' +
  '2105-2106 2108-2109 2116 2121 2127 2129 212e 213b 2140-2143 2160-217f 2191 2195 219a-219b 21ae 21be-21bf 21cd-21cf 2200 2203-2204 2206 2209 220c 220f ' +
  '2211 2214 221e 2223-2226 2228-222d 2238 2241 2244 2247 2249 2250-2251 2257 2259-225a 225e 2260 2262 226d-2271 2274-2275 2278-2279 2280-2285 2288-2289 ' +
  '2295-2296 2299 229d 22a4-22a5 22ac-22af 22c1-22c4 22c8 22e0-22e3 22ea-22ee 22f4 22ff 2341 2359-235a 235c 2361-2365 2368-2369 236b-236c 2373-237a 237f ' +
  '239c 239f 23a2 23a5 23aa 23ae 23fd 2474-24b5 2500-2501 2573 2594 25b3 25bd 25c7 25ca 2609 2625 2630 2662 2669-266a 27c2 27c8-27c9 27d9 292b-292c 2963 ' +
  '296e-296f 2999 29c4 29d6 29f6 2a00-2a01 2a0c 2a1d 2a21-2a26 2a29-2a2a 2a2f-2a30 2a6a 2a6e 2aaa-2aab 2ad7 2adc 2e1a 2e1e-2e1f 2e26-2e27 2e39 2e3d ' +
  '2e82-2e83 2e85 2e89 2e8b 2e8e-2e90 2e92-2e94 2e96-2e99 2e9b 2e9e-2ea4 2ea6 2ea8 2eab 2ead 2eaf 2eb1-2eb2 2eb9-2eba 2ebe-2ec5 2ec8-2ec9 2ecb-2ecd ' +
  '2ecf-2ed4 2ed6 2ed8-2edd 2edf-2ee0 2ee2 2ee4-2ee5 2ee8-2ee9 2eeb-2ef0 2ef2-2ef3 2f00-2f01 2f04-2fd5 3007 3038-303a 309b-309c 31d0-31d1 31d6 31da ' +
  '31df-31e0 3200-321e 3220-3243 32c0-32cb 3358-3370 33e0-33fe a494 a49c a49e a4a7-a4a8 a4ac a4b0 a4ba a4be-a4c0 a4c2 a67e a6ef a9c6 fb29 fdfc fe19 ' +
  'fe49-fe4c ff0d ffe3 ffe8 1018e 10196-10199 102e1 102e4 102e8 102f2 102f5 10320 10322 103d1 103d3 10cfa 10cfc 118ec 118ef 118f2 1d15e-1d164 1d1bb-1d1c0 ' +
  '1d202 1d206 1d20b 1d20d 1d212-1d217 1d21a 1d21c 1d221-1d222 1d22a-1d22b 1d230 1d23f 1d245 1e8c7 1e8c9 1e8cb 1e8cd 1f100-1f10a 1f10f-1f12a 1f16d-1f16e ' +
  '1f240-1f248 1f700-1f702 1f704 1f707-1f708 1f714 1f728 1f74c 1f754 1f75c 1f768 1f76b-1f76c ',
)

/** hasKey reports whether a name has a key that is not empty. */
export const hasKey = (name) =>
  [...name].some((c) =>
    /[\p{L}\p{Nd}\p{M}]/u.test(c)
      ? !EMPTY.has(c) && !/[\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}\p{Variation_Selector}]/u.test(c)
      : KEYED.has(c),
  )
