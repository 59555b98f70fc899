package storefront

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// evidenceRequest asks for the newest entries.
func (p *party) evidenceRequest(change func(*policies.EvidenceRequest)) *envelope.Envelope {
	now := time.Now()
	d := &policies.EvidenceRequest{
		Header: policies.NewHeader("evidence", now), Audience: p.w.doc.Vault, Session: p.hash, Nonce: policies.NewNonce(), Expires: now.Unix() + 60, Limit: 50,
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(p.sessKey, d)
	p.w.must(err)
	return e
}

// A request for evidence goes to the vault as it came, and the answer comes back for the reader alone.
func TestEvidence(t *testing.T) {
	w := newWorld(t, loose)
	acme := w.member(policies.KindBusiness)
	acme.openSession()
	e := acme.evidenceRequest(nil)
	var sealed vaultapi.SealedEvidence
	w.must(acme.open("POST", api.PathEvidence, e.Raw, &sealed))
	plain, err := acme.k.OpenEvidence(e.Hash, sealed.Answer)
	w.must(err)
	a, err := evidence.ParseAnswer(plain)
	w.must(err)
	if len(a.Evidence) != 2 { // the session, and the enrolment
		t.Errorf("%d entries", len(a.Evidence))
	}
	for _, c := range []struct {
		name string
		body []byte
		want policies.Code
	}{
		{"again", e.Raw, policies.CodeReplay},
		{"unknown session", acme.evidenceRequest(func(d *policies.EvidenceRequest) { d.Session = policies.Hash{1} }).Raw, policies.CodeSession},
		{"expired", acme.evidenceRequest(func(d *policies.EvidenceRequest) { d.Time, d.Expires = d.Time-100, d.Time }).Raw, policies.CodeExpired},
		{"a read", acme.readRequest("delivery", policies.ReadItem{Owner: acme.owner(), Field: "a"}).Raw, policies.CodeMalformed},
	} {
		if err := acme.open("POST", api.PathEvidence, c.body, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// Entries cost like fields, and junk costs its network address.
func TestEvidenceIsCharged(t *testing.T) {
	limits := loose
	limits.FieldRate, limits.FieldBurst = 0.001, 1100
	limits.OpenRate, limits.OpenBurst = 0.001, 20
	w := newWorld(t, limits)
	acme := w.member(policies.KindBusiness)
	acme.openSession()
	for i := range 4 {
		err := acme.open("POST", api.PathEvidence, acme.evidenceRequest(func(d *policies.EvidenceRequest) { d.Limit = 500 }).Raw, nil)
		if limited := i >= 2; limited != errors.Is(err, policies.CodeRateLimited) || !limited && err != nil {
			t.Errorf("500 entries for the %d. time: %v", i+1, err)
		}
	}
	var err error
	for range 21 {
		err = acme.open("POST", api.PathEvidence, acme.evidenceRequest(func(d *policies.EvidenceRequest) { d.Session = policies.Hash{1} }).Raw, nil)
	}
	wantCode(t, err, policies.CodeRateLimited)
}
