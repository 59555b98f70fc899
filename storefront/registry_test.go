package storefront

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/storefront/api"
)

// registers says who may look a party up.
func (p *party) registers(version uint64, rule registry.Lookup) error {
	p.w.t.Helper()
	e, err := policies.Sign(p.signer, &registry.Registration{Header: policies.NewHeader("registration", time.Now()), Identity: p.id, Version: version, Lookup: rule})
	p.w.must(err)
	return p.do("POST", api.PathRegistrations, e.Raw, nil)
}

// relates signs and posts a relationship of p, as reader, with an owner.
func (p *party) relates(owner *party) error {
	p.w.t.Helper()
	e, err := policies.Sign(p.signer, &policies.Relationship{
		Header: policies.NewHeader("relationship", time.Now()), Audience: p.w.doc.Vault, Reader: policies.ReaderID(p.id), Owner: owner.owner(),
		KEMKey: make([]byte, policies.KEMPublicKeySize), Nonce: policies.NewNonce(),
	})
	p.w.must(err)
	return p.do("POST", api.PathRelationships, e.Raw, nil)
}

// introduces makes an introduction of subject to another, signed by p in its own name or another's.
func (p *party) introduces(subject, to *party, change func(*registry.Introduction)) *envelope.Envelope {
	p.w.t.Helper()
	now := time.Now()
	d := &registry.Introduction{
		Addressed: consent.Addressed{Header: policies.NewHeader("introduction", now), From: p.id, To: to.id, Expires: now.Add(time.Hour).Unix()},
		Subject:   subject.id, Purpose: "a loan", Nonce: policies.NewNonce(),
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(p.signer, d)
	p.w.must(err)
	return e
}

func (p *party) looksUp(whom *party, by *envelope.Envelope) error {
	p.w.t.Helper()
	in := api.Lookup{Identity: whom.id}
	if by != nil {
		in.Introduction = by.Raw
	}
	return p.finds(whom, in)
}

func (p *party) finds(whom *party, in api.Lookup) error {
	p.w.t.Helper()
	var out api.Found
	if err := p.do("POST", api.PathLookups, in, &out); err != nil {
		return err
	}
	e, err := envelope.Parse(out.Identity)
	p.w.must(err)
	if policies.IdentityID(e.Hash) != whom.id {
		p.w.t.Errorf("looking %s up gave %s", whom.id, policies.IdentityID(e.Hash))
	}
	return nil
}

// TestLookups: who is looked up by introduction only is shown to whom it signed something for, and to whom it or one of its customers introduced, once for each introduction; to nobody else,
// whatever these sign.
func TestLookups(t *testing.T) {
	w := newWorld(t, loose)
	employer, bank, mole := w.member(policies.KindBusiness), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	zoe, eve := w.member(policies.KindPerson), w.member(policies.KindPerson)
	get := func(by *party, whom *party) error {
		return by.do("GET", fill(api.PathIdentity, whom.id), nil, nil)
	}
	w.must(get(bank, employer))
	w.must(bank.looksUp(employer, nil)) // nothing is registered: whoever has the id

	w.must(employer.registers(1, registry.Introduced))
	wantCode(t, get(bank, employer), policies.CodeNotIntroduced)
	wantCode(t, bank.do("GET", fill(api.PathSuccessions, employer.id), nil, nil), policies.CodeNotIntroduced)
	wantCode(t, bank.looksUp(employer, nil), policies.CodeNotIntroduced)
	w.must(employer.looksUp(employer, nil))
	wantCode(t, bank.open("POST", api.PathLookups, api.Lookup{Identity: employer.id}, nil), policies.CodeUnauthorized)
	bank.logIn()

	// That others sign something about the party helps them nothing; what the party signs for them does.
	w.must(zoe.relates(employer))
	wantCode(t, zoe.looksUp(employer, nil), policies.CodeNotIntroduced)
	wantCode(t, bank.looksUp(employer, zoe.introduces(employer, bank, nil)), policies.CodeIntroducer)
	w.must(employer.relates(zoe))
	w.must(zoe.looksUp(employer, nil))

	// An introduction is by the party or a customer, signed, for whom it names, for a while, and once.
	wantCode(t, bank.looksUp(employer, eve.introduces(employer, bank, nil)), policies.CodeIntroducer)
	wantCode(t, bank.looksUp(employer, mole.introduces(employer, bank, func(d *registry.Introduction) { d.From = zoe.id })), policies.CodeSignature)
	wantCode(t, bank.looksUp(employer, mole.introduces(employer, bank, func(d *registry.Introduction) { d.From = employer.id })), policies.CodeSignature)
	wantCode(t, bank.looksUp(employer, zoe.introduces(mole, bank, nil)), policies.CodeNotIntroduced)
	old := zoe.introduces(employer, bank, func(d *registry.Introduction) {
		d.Time, d.Expires = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	})
	wantCode(t, bank.looksUp(employer, old), policies.CodeIntroductionExpired)
	good := zoe.introduces(employer, bank, nil)
	wantCode(t, mole.looksUp(employer, good), policies.CodeNotIntroduced)
	w.must(bank.looksUp(employer, good))
	wantCode(t, bank.looksUp(employer, good), policies.CodeIntroductionUsed)
	w.must(bank.looksUp(employer, nil)) // until it ends
	wantCode(t, mole.looksUp(employer, nil), policies.CodeNotIntroduced)
	wantCode(t, get(bank, employer), policies.CodeNotIntroduced) // nobody knows who asks there
	w.must(mole.looksUp(employer, employer.introduces(employer, mole, nil)))

	// It outlives a restart, and so does that it was used.
	w.crash()
	for _, p := range []*party{employer, bank, mole, zoe, eve} {
		p.logIn()
	}
	wantCode(t, bank.looksUp(employer, good), policies.CodeIntroductionUsed)
	w.must(bank.looksUp(employer, nil))
	for range introductionsOfPair - 1 {
		w.must(bank.looksUp(employer, zoe.introduces(employer, bank, nil)))
	}
	wantCode(t, bank.looksUp(employer, zoe.introduces(employer, bank, nil)), policies.CodeTooLarge)

	// What is registered is the identity's own, and the newest version counts.
	wantCode(t, employer.registers(1, registry.Anyone), policies.CodeOutdated)
	forged, err := policies.Sign(mole.signer, &registry.Registration{Header: policies.NewHeader("registration", time.Now()), Identity: employer.id, Version: 9, Lookup: registry.Anyone})
	w.must(err)
	wantCode(t, mole.do("POST", api.PathRegistrations, forged.Raw, nil), policies.CodeUnauthorized)
	wantCode(t, employer.do("POST", api.PathRegistrations, forged.Raw, nil), policies.CodeSignature)
	w.must(employer.registers(2, registry.Anyone))
	w.must(get(eve, employer))
	wantCode(t, eve.looksUp(&party{w: w, id: policies.IdentityID{1}}, nil), policies.CodeNotFound)
}

// TestLookupOfAuthor: who may read what somebody wrote may look the writer up, by the owner's grant that names it.
func TestLookupOfAuthor(t *testing.T) {
	w := newWorld(t, loose)
	anna, acme, writer := w.member(policies.KindPerson), w.member(policies.KindBusiness), w.member(policies.KindBusiness)
	w.must(writer.registers(1, registry.Introduced))
	w.must(acme.relates(anna))
	anna.publish([]api.Item{anna.set("phone.mobile", "+49 1")})
	g := anna.give(acme, "delivery", "phone.mobile")
	wantCode(t, acme.finds(writer, api.Lookup{Identity: writer.id, Owner: anna.owner()}), policies.CodeNotIntroduced)
	g.Fields[0].Author = policies.AuthorID(writer.id)
	g.ID, g.Seq = policies.NewDocumentID(), g.Seq+1
	e, err := policies.Sign(anna.signer, g)
	w.must(err)
	w.must(w.front.indexGrant(t.Context(), g, e))
	w.must(acme.finds(writer, api.Lookup{Identity: writer.id, Owner: anna.owner()}))
	wantCode(t, acme.looksUp(writer, nil), policies.CodeNotIntroduced)
}

// No two kinds of records begin with the same byte: the compiler takes no key of a map twice.
var _ = map[byte]bool{
	kindIdentity: true, kindByReader: true, kindByOwner: true, kindCount: true, kindTree: true, kindWork: true, kindLeaf: true, kindCiphertext: true, kindChain: true, kindGrant: true,
	kindGrantPlaces: true, kindSuccession: true, kindVoucher: true, kindGivenUp: true, kindGivingUp: true, kindLetter: true, kindSealed: true, kindNumber: true, kindClosed: true, kindWriteGrant: true, kindWritePlaces: true,
	kindRegistration: true, kindIntroduced: true, kindIntroducedTo: true, kindIntroducedCount: true,
}
