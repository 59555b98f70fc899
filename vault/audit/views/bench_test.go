package views

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// BenchmarkViews asks an index of ten million entries, of 10,000 owners and 100 readers, one each 30 ms, its files in the page cache.
func BenchmarkViews(b *testing.B) {
	const entries, owners, readers = 10_000_000, 10_000, 100
	x := openIndex(b, b.TempDir())
	w, err := x.writer()
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	party := func(kind byte, n int) policies.Pseudonym { return policies.Pseudonym{kind, byte(n), byte(n >> 8)} }
	var details [][]byte
	for _, f := range []policies.Field{"phone.mobile", "iban", "name", "address.home", "email"} {
		text, err := json.Marshal(evidence.Details{Field: f})
		if err != nil {
			b.Fatal(err)
		}
		details = append(details, text)
	}
	begin := time.Now()
	for i := range entries {
		record := audit.Record{Index: uint64(i), Time: start.Add(time.Duration(i) * 30 * time.Millisecond), Opening: &evidence.Opening{Details: details[r.IntN(len(details))]}}
		record.Entry = evidence.Entry{Kind: evidence.EntryUse, Owner: party(1, r.IntN(owners)), Reader: party(2, r.IntN(readers)), Outcome: policies.CodeReleased}
		if r.IntN(50) == 0 {
			record.Entry.Kind, record.Entry.Outcome = evidence.EntryRefusal, policies.CodeRevoked
		}
		if err := w.add(&record); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.finish("benchmark"); err != nil {
		b.Fatal(err)
	}
	b.Logf("%.0f entries a second go into the index", entries/time.Since(begin).Seconds())
	refusals := []evidence.Kind{evidence.EntryRefusal}
	for _, c := range []struct {
		name  string
		query Query
		by    []By // count, else search
	}{
		{"newest 100", Query{Limit: 100}, nil},
		{"100 of an owner", Query{Owner: party(1, 77), Limit: 100}, nil},
		{"all of an owner", Query{Owner: party(1, 77)}, nil},
		{"an owner and a reader that never met there", Query{Owner: party(1, 77), Reader: party(2, 7), Field: "iban", Kinds: refusals}, nil},
		{"refusals of a reader in an hour", Query{Reader: party(2, 7), Kinds: refusals, From: start.Add(30 * time.Hour), To: start.Add(31 * time.Hour)}, nil},
		{"count by outcome", Query{}, []By{ByOutcome}},
		{"count refusals by reader", Query{Kinds: refusals}, []By{ByReader}},
		{"count by reader and outcome", Query{}, []By{ByReader, ByOutcome}},
		{"count a reader by day and field", Query{Reader: party(2, 7)}, []By{ByDay, ByField}},
		{"count by owner", Query{}, []By{ByOwner}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if c.by != nil {
					if _, err := x.Count(c.query, c.by...); err != nil {
						b.Fatal(err)
					}
				} else if _, _, err := x.Search(c.query); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/answer")
		})
	}
}
