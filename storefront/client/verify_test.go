package client

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/client/phrases"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

func TestVerify(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	o, _ := w.owner()
	r, _ := w.reader("R")
	w.must(o.Set(ctx, set("note", "n"), set("tax.id", "t")))
	w.connect(o, r, "r")
	w.must(o.Grant(ctx, r.ID(), []policies.Field{"note", "tax.id"}, GrantOptions{}))
	w.wantRead(r, o, "note", "n")
	w.must(o.Revoke(ctx, r.ID(), []policies.Field{"tax.id"}, RevokeOptions{}))
	check := func(what string) {
		t.Helper()
		v, err := o.Verify(ctx)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, c := range v.Checks {
			if want := c.What == what; want != (len(c.Wrong) > 0) {
				t.Errorf("looking for %q: %s: %q", what, c.What, c.Wrong)
			}
			for _, f := range c.Wrong {
				said(t, f)
			}
		}
		if v.Agrees() != (what == "") || v.Entries < 6 {
			t.Errorf("looking for %q: agrees %v, %d entries", what, v.Agrees(), v.Entries)
		}
	}
	check("")

	// The storefront leaves out one entry of a kind: what is left proves itself, and its absence shows.
	for _, c := range []struct {
		kind evidence.Kind
		what string
	}{{"identity", "enrolment"}, {"destroyed", "revocations"}} {
		w.rewrite("/history", func(b []byte) []byte {
			var h vaultapi.History
			w.must(envelope.Decode(b, &h))
			h.Entries = slices.DeleteFunc(h.Entries, func(e evidence.Evidence) bool {
				_, entry, err := evidence.ParseLogLeaf(e.Leaf)
				return err == nil && entry.Kind == c.kind
			})
			b, _ = json.Marshal(h)
			return b
		})
		check(c.what)
	}
	w.hostile(nil)

	// The device takes for in force what the log says has ended.
	for i := range o.state.Grants {
		if g := &o.state.Grants[i]; len(g.Ended) > 0 {
			ended := g.Ended
			g.Ended = nil
			check("grants")
			g.Ended = ended
			break
		}
	}
	o.state.Manifest.Version++
	check("newest manifest")
	o.state.Manifest.Version--
	check("")

	// Without proof that the log still has what was seen nothing is called verified.
	w.noProofs()
	w.secondRoute(false)
	w.must(o.Set(ctx, set("note", "m")))
	if _, err := o.Verify(ctx); !errors.Is(err, policies.CodeUnavailable) {
		t.Errorf("without consistency proofs: %v", err)
	}
}

// said: a finding is a sentence in each language, with all of its places filled.
func said(t *testing.T, f Finding) {
	t.Helper()
	for _, l := range []phrases.Language{phrases.English, phrases.German} {
		if text := f.In(l); text == f.phrase || strings.ContainsAny(text, "{}") {
			t.Errorf("%s: %s is said as %q", l, f.phrase, text)
		}
	}
}

func TestRecordedChain(t *testing.T) {
	docs := []policies.Hash{{1}, {2}, {3}}
	at := func(seq uint64, h policies.Hash) link {
		return link{seq, evidence.EntryManifest, &evidence.Details{Seq: seq, Document: h}}
	}
	for name, c := range map[string]struct {
		links []link
		known position
		wrong int
	}{
		"all":      {[]link{at(3, docs[2]), at(2, docs[1]), at(1, docs[0])}, position{3, docs[2]}, 0},
		"one out":  {[]link{at(3, docs[2]), at(1, docs[0])}, position{3, docs[2]}, 1},
		"twice":    {[]link{at(3, docs[2]), at(2, docs[1]), at(2, docs[1]), at(1, docs[0])}, position{3, docs[2]}, 1},
		"another":  {[]link{at(3, docs[2]), at(2, policies.Hash{9}), at(1, docs[0])}, position{3, docs[2]}, 1},
		"one more": {[]link{at(4, policies.Hash{9}), at(3, docs[2]), at(2, docs[1]), at(1, docs[0])}, position{3, docs[2]}, 1},
		"behind":   {[]link{at(3, docs[2]), at(2, docs[1]), at(1, docs[0])}, position{4, policies.Hash{4}}, 1},
	} {
		h := recorded{links: c.links}
		wrong := h.chain(docs, c.known)
		if len(wrong) != c.wrong {
			t.Errorf("%s: %s", name, wrong)
		}
		for _, f := range wrong {
			said(t, f)
		}
	}
}
