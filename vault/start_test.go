package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/internal/sealed"
	"github.com/sallyport/sallyport/vault/keylog"
)

// fill writes the log and the sealed keys of many grants as a vault would have, without anybody's signatures: a start looks at none of
// them. Each owner has ten grants.
func (w *world) fill(grants int) {
	w.t.Helper()
	r := w.reader()
	o := w.owner()
	o.set("name", "n")
	s, g, _ := o.grantOf(r, nil, "name") // the model of all others
	model, err := envelope.Parse(s.Envelope)
	must(w.t, err)
	_, identity := w.identity()
	modelIdentity, err := envelope.Parse(identity.Envelope)
	must(w.t, err)
	person, err := policies.Decode[policies.Identity](modelIdentity)
	must(w.t, err)
	w.kill()
	log, err := keylog.Open(w.t.Context(), w.logConfig())
	must(w.t, err)
	store, err := sealed.Open(sealed.Config{Dir: w.config().Keys, DataKey: w.config().DataKey, Vault: w.document.Vault, Reserve: 1, Logger: w.config().Logger})
	must(w.t, err)
	var batch []keylog.Record
	flush := func() {
		_, _, err := log.Append(context.Background(), batch...)
		must(w.t, err)
		batch = batch[:0]
	}
	readerPseudonym := policies.NewPseudonym() // any will do: a start does not compare it
	put := make(chan sealed.ID, 1024)
	var putting sync.WaitGroup
	for range 64 {
		putting.Go(func() {
			blob := make([]byte, 80)
			rand.Read(blob)
			for id := range put {
				if err := store.Put(id, sealed.Key{Period: 1, Blob: blob}); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	var owner policies.OwnerID
	var pseudonym policies.Pseudonym
	var link policies.Link
	for i := range grants {
		if i%10 == 0 {
			d := *person
			d.ID = policies.NewDocumentID()
			e := unsigned[policies.Identity](w.t, modelIdentity, &d)
			owner, pseudonym = policies.OwnerID(e.Hash), policies.NewPseudonym()
			link = policies.Link{Seq: 1, Prev: policies.Hash(owner)}
			record := ledger.Record{
				Kind: evidence.EntryIdentity, Owner: pseudonym, Outcome: policies.CodeAccepted, Raw: e.Raw,
				Details: evidence.Details{Document: e.Hash, Identity: policies.IdentityID(owner), Pseudo: pseudonym},
			}
			batch = append(batch, record.Seal())
		}
		d := *g
		d.ID, d.Owner, d.Link = policies.NewDocumentID(), owner, link
		d.Fields = []policies.GrantedField{g.Fields[0]}
		d.Fields[0].Author = policies.AuthorID(owner)
		e := unsigned[policies.Grant](w.t, model, &d)
		imported := ledger.Record{
			Kind: evidence.EntryImport, Owner: pseudonym, Reader: readerPseudonym, Raw: e.Raw,
			Details: evidence.Details{Owner: owner, Reader: d.Reader, Grant: d.ID, Document: e.Hash, Token: testSerial, Custody: d.Custody},
		}
		granted := ledger.Record{
			Kind: evidence.EntryGrant, Owner: pseudonym, Reader: readerPseudonym, Outcome: policies.CodeAccepted,
			Details: evidence.Details{Owner: owner, Reader: d.Reader, Grant: d.ID, Document: e.Hash, Custody: d.Custody},
		}
		batch = append(batch, imported.Seal())
		flush() // each document was a commit of its own
		batch = append(batch, granted.Seal())
		flush()
		put <- sealed.ID(keyID(d.ID, "name", policies.AuthorID(owner)))
		link = policies.Link{Seq: link.Seq + 1, Prev: e.Hash}
	}
	close(put)
	putting.Wait()
	must(w.t, store.Close())
	must(w.t, log.Close())
}

// unsigned puts a document into the envelope of another, under its signature.
func unsigned[T any, D interface {
	*T
	envelope.Document
	Validate() error
}](t testing.TB, model *envelope.Envelope, d *T) *envelope.Envelope {
	t.Helper()
	payload, err := json.Marshal(d)
	must(t, err)
	begin := bytes.Index(model.Raw, []byte(`"payload":"`)) + len(`"payload":"`)
	end := begin + bytes.IndexByte(model.Raw[begin:], '"')
	raw := append(bytes.Clone(model.Raw[:begin]), base64.StdEncoding.EncodeToString(payload)...)
	e, err := envelope.Parse(append(raw, model.Raw[end:]...))
	must(t, err)
	return e
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const startGrants = 100_000

// BenchmarkStart opens a vault with a hundred thousand grants that was killed: log, database, sealed keys, sweep. On a machine that does other
// work, the processor time of all threads is what to look at: an idle one needs no longer than that.
func BenchmarkStart(b *testing.B) {
	w := newWorld(b)
	w.custody = policies.CustodySealed
	w.fill(startGrants)
	w.reopen(false) // makes the database
	var cpu time.Duration
	for b.Loop() {
		w.kill()
		begin, before := time.Now(), processorTime(b)
		log, err := keylog.Open(b.Context(), w.logConfig())
		must(b, err)
		w.log = log
		opened := time.Since(begin)
		w.open()
		b.ReportMetric(opened.Seconds(), "s-log/op")
		b.ReportMetric((time.Since(begin) - opened).Seconds(), "s-vault/op")
		cpu += processorTime(b) - before
	}
	b.ReportMetric(cpu.Seconds()/float64(b.N), "s-cpu/op")
	if h := w.vault.Health(); h.Sealed != startGrants || h.Sealing.Missing != 0 {
		b.Fatalf("health %+v, %+v", h, h.Sealing)
	}
}
