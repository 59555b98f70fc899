package client

import (
	"bytes"
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
)

// TestVaultAndStorefrontTogether: a vault that lies under its own key, with a storefront that gives what fits, still cannot say which of an owner's items are in force: that, the owner's
// signature under the manifest says, and for which vault, owner and author; nor can it pass one field off as another.
func TestVaultAndStorefrontTogether(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	m := w.mole()
	o, r, store := w.shop()
	w.must(r.Flush())
	thief := envelope.NewPrivateKey(&[envelope.SeedSize]byte{77})
	items := []Item{{Owner: o.ID(), Field: "note"}, {Owner: o.ID(), Field: "phone.mobile"}}
	read := func() []Value {
		t.Helper()
		fresh, err := OpenReader(&memory{state: bytes.Clone(store.state)}, Options{}) // with nothing in memory that was verified before
		w.must(err)
		values, err := fresh.Read(ctx, items...)
		w.must(err)
		return values
	}
	// head puts the note alone under a manifest that was never published, and has the vault name it.
	head := func(signer *envelope.PrivateKey, change func(*policies.Manifest)) func(*policies.Answer, *api.ReadResult) {
		return func(a *policies.Answer, out *api.ReadResult) {
			d := &policies.Manifest{
				Header: policies.NewHeader("manifest", o.now()), Audience: w.doc.Vault, Owner: o.ID(), Author: o.author(),
				Link: policies.Link{Seq: 90, Prev: policies.Hash{1}}, Version: 9, PrevManifest: policies.Hash{1}, Root: a.Items[0].Leaf, TreeSize: 1,
			}
			if change != nil {
				change(d)
			}
			e, err := policies.Sign(signer, d)
			w.must(err)
			a.Items[0].Head, a.Items[0].Version, out.Items[0].Proof = policies.Hash(e.Hash), 9, policies.Proof{}
			out.Documents = append(out.Documents, jsontext.Value(e.Raw))
		}
	}
	for name, c := range map[string]struct {
		lie func(*policies.Answer, *api.ReadResult)
		bad []bool // by item
	}{
		"an honest one":                {func(*policies.Answer, *api.ReadResult) {}, []bool{false, false}},
		"a manifest of the owner's":    {head(o.signing, nil), []bool{false, false}},
		"a manifest signed by another": {head(thief, nil), []bool{true, false}},
		"of another owner's fields": {head(o.signing, func(d *policies.Manifest) {
			d.Owner, d.Link = policies.OwnerID{5}, policies.Link{Seq: 9, Prev: policies.Hash{1}}
		}), []bool{true, false}},
		"for another vault":  {head(o.signing, func(d *policies.Manifest) { d.Audience = policies.VaultID{5} }), []bool{true, false}},
		"of another version": {head(o.signing, func(d *policies.Manifest) { d.Version = 8 }), []bool{true, false}},
		"one field for another": {func(a *policies.Answer, out *api.ReadResult) {
			a.Items[0], a.Items[1] = a.Items[1], a.Items[0]
			out.Items[0], out.Items[1] = out.Items[1], out.Items[0]
		}, []bool{true, true}},
	} {
		m.result = c.lie
		for i, v := range read() {
			want := []string{"n", "p"}[i]
			if c.bad[i] {
				want = ""
			}
			if string(v.Bytes) != want || c.bad[i] && !errors.Is(v.Err, ErrUntrue) {
				t.Errorf("%s: item %d: %q, %v; want %q", name, i, v.Bytes, v.Err, want)
			}
		}
	}
}
