package vault

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/vault/api"
)

// business is an identity with a name, and the document to enrol it.
func (w *world) business(name string) (policies.IdentityID, api.Submission) {
	w.t.Helper()
	key, recovery, kem := newParty()
	e, err := policies.Sign[policies.Identity](key, &policies.Identity{
		Header: policies.NewHeader("identity", time.Now()), Kind: policies.KindBusiness, Name: name, SigningKey: publicBytes(key),
		KEMKey: kem, LoginKey: kem, RecoveryHash: policies.HashKey(publicBytes(recovery)),
	})
	must(w.t, err)
	return policies.IdentityID(e.Hash), api.Submission{Envelope: e.Raw}
}

// voucherOf is one that the ceremony key signs, good for ten days.
func (w *world) voucherOf(id policies.IdentityID, name string, serial uint64, change func(*names.Voucher)) api.Submission {
	now := w.clock.now()
	d := &names.Voucher{
		Header: policies.NewHeader("voucher", now), Audience: w.document.Vault, Identity: id, Name: name, Serial: serial, NotBefore: now.Unix(), Expires: now.Unix() + 10*86400,
	}
	if change != nil {
		change(d)
	}
	e, err := policies.Sign(newSigner(1), d) // newWorld's ceremony
	must(w.t, err)
	return api.Submission{Envelope: e.Raw}
}

func withdrawn(d *names.Voucher) { d.NotBefore, d.Expires, d.Withdrawn = 0, 0, true }

// TestVouchers: one name looks like one identity. What was vouched for is refused to everybody else, at their vouchers and at their enrolment, until the voucher is withdrawn or ends;
// after a restart too, from the database and from the log alone.
func TestVouchers(t *testing.T) {
	w := newWorld(t)
	acme, document := w.business("Acme Versand")
	twin, twins := w.business("Acme Versand")
	other, others := w.business("Globex")
	for _, s := range []api.Submission{document, twins, others} {
		w.accepted(s) // before anybody is vouched for, a name is a label
	}
	_, stranger := w.business("Hooli")
	w.refuses(w.voucherOf(policies.IdentityID{1}, "Hooli", 1, nil), policies.CodeUnknown, "for somebody who is not enrolled")
	w.refuses(w.voucherOf(acme, "Globex", 1, nil), policies.CodeVoucher, "for another name than the identity's")
	w.refuses(w.voucherOf(acme, "Acme Versand", 1, func(d *names.Voucher) { d.NotBefore, d.Expires = d.NotBefore-86400*20, d.NotBefore-1 }), policies.CodeExpired, "one that is over")
	w.refuses(w.voucherOf(acme, "Acme Versand", 1, func(d *names.Voucher) { d.Audience[0]++ }), policies.CodeWrongVault, "for another vault")
	forged := &names.Voucher{
		Header: policies.NewHeader("voucher", w.clock.now()), Audience: w.document.Vault, Identity: twin, Name: "Acme Versand", Serial: 1, NotBefore: w.clock.now().Unix(), Expires: w.clock.now().Unix() + 86400,
	}
	e, err := policies.Sign(newSigner(99), forged)
	must(t, err)
	w.refuses(api.Submission{Envelope: e.Raw}, policies.CodeVoucher, "one that another key signed")
	person := w.enrol()
	w.refuses(w.voucherOf(person.id, "Ada", 1, nil), policies.CodeVoucher, "for a person, who has no name")

	first := w.voucherOf(acme, "Acme Versand", 5, nil)
	receipt := w.accepted(first)
	_, alike := w.business("АCME-VERSAND") // its first letter is Cyrillic
	for _, database := range []bool{true, false} {
		if again := w.accepted(first); again.Evidence.Index != receipt.Evidence.Index {
			t.Errorf("sent again it is entry %d, first %d", again.Evidence.Index, receipt.Evidence.Index)
		}
		w.refuses(w.voucherOf(acme, "Acme Versand", 5, func(d *names.Voucher) { d.Expires++ }), policies.CodeVoucherOld, "the same serial number")
		w.refuses(w.voucherOf(acme, "Acme Versand", 4, withdrawn), policies.CodeVoucherOld, "an older withdrawal")
		w.refuses(w.voucherOf(twin, "Acme Versand", 9, nil), policies.CodeLookAlike, "the name of another")
		w.refuses(alike, policies.CodeLookAlike, "enrolling under a name that looks like it")
		w.accepted(twins) // enrolled before: known
		must(t, w.vault.Close(t.Context()))
		w.log.Close()
		w.reopen(database)
	}
	w.accepted(stranger)
	w.accepted(w.voucherOf(other, "Globex", 1, nil))

	// Withdrawn, the name is free; the old voucher sent again is the old entry and changes nothing.
	w.accepted(w.voucherOf(acme, "Acme Versand", 6, withdrawn))
	w.accepted(first)
	w.accepted(w.voucherOf(twin, "Acme Versand", 10, nil))
	w.refuses(w.voucherOf(acme, "Acme Versand", 7, nil), policies.CodeLookAlike, "the name is the other's now")
	w.clock.move(10*24*time.Hour + time.Second)
	w.accepted(w.voucherOf(acme, "Acme Versand", 8, nil)) // the other's ended
	w.refuses(w.voucherOf(twin, "Acme Versand", 11, nil), policies.CodeLookAlike, "and is the first one's again")
	w.restart(true)
	w.refuses(w.voucherOf(twin, "Acme Versand", 12, nil), policies.CodeLookAlike, "after a restart")

	kinds := map[string]int{}
	for _, r := range w.records() {
		if r.Kind == evidence.EntryVoucher {
			kinds[r.Details.Note]++
			if r.Reader.IsZero() || !r.Owner.IsZero() || len(r.Raw) == 0 {
				t.Errorf("the entry: %+v", r)
			}
		}
	}
	if kinds["vouched for"] != 4 || kinds["withdrawn"] != 1 {
		t.Errorf("entries: %v", kinds)
	}
}
