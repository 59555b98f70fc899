package client

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/deposit"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/storefront/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// loan asks for what an employer knows.
func loan() Ask {
	return Ask{
		Fields:  []consent.AskedField{{Field: "income.net", Required: true, Reason: "net income of a month"}, {Field: "job.since", Required: true, Reason: "since when"}},
		Purpose: consent.Purpose{Text: "a loan", Term: "ServiceProvision"}, Duration: 30 * 24 * time.Hour,
	}
}

// wantRefused looks into a reader's mailbox: one message, refused as want.
func (w *world) wantRefused(r *Reader, what string, want error) {
	w.t.Helper()
	mail, err := r.Receive(w.t.Context(), 0)
	w.must(err)
	if mail.Taken != 0 || len(mail.Refused) != 1 || !errors.Is(mail.Refused[0], want) {
		w.t.Errorf("%s: %d taken, refused %v; want %v", what, mail.Taken, mail.Refused, want)
	}
}

// three are a customer, who met an employer and a bank, and these two. All but the bank are looked up by introduction only, and the bank has met the employer by one.
func (w *world) three() (zoe *Owner, employer, bank *Reader) {
	w.t.Helper()
	zoe, _, employer, bank = w.threeWith()
	return zoe, employer, bank
}

// threeWith is three with what the customer's device stores.
func (w *world) threeWith() (zoe *Owner, m *memory, employer, bank *Reader) {
	w.t.Helper()
	ctx := w.t.Context()
	zoe, m = w.owner()
	employer, _ = w.reader("Works")
	bank, _ = w.reader("Bank")
	w.connect(zoe, employer, "employer")
	w.must(employer.Register(ctx, registry.Introduced))
	w.must(zoe.Register(ctx, registry.Introduced))
	link, err := bank.Invite("LOAN-1", time.Now().Add(time.Hour))
	w.must(err)
	w.must(zoe.Accept(ctx, link, "bank"))
	w.hears(bank, 2) // she introduces herself, and accepts
	w.looks(zoe, 0)
	w.must(zoe.Introduce(ctx, employer.ID(), bank.ID(), "my employer"))
	w.hears(bank, 1)
	_, err = bank.LookUp(ctx, policies.IdentityID(employer.ID()), "works")
	w.must(err)
	return zoe, m, employer, bank
}

// TestDeposit: a bank asks for an income, the customer decides, the employer deposits while she is away, and the bank reads what the employer attested. Each step that somebody could take
// out of turn is refused, with a code of its own.
func TestDeposit(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, employer, bank := w.three()
	works := policies.IdentityID(employer.ID())
	mole, _ := w.reader("Bank")

	// Nobody else looks them up, and the bank pinned who the employer is.
	if _, err := mole.LookUp(ctx, works, ""); !errors.Is(err, policies.CodeNotIntroduced) {
		t.Errorf("looked up without an introduction: %v", err)
	}
	if _, err := mole.Connect(ctx, links.Contact{Role: "owner", ID: policies.IdentityID(zoe.ID()), Nonce: policies.NewNonce()}, ""); !errors.Is(err, policies.CodeNotIntroduced) {
		t.Errorf("connected with a leaked id: %v", err)
	}
	if _, err := mole.Specify(ctx, zoe.ID(), works, loan()); !errors.Is(err, ErrNoContact) {
		t.Errorf("a specification of a stranger: %v", err)
	}
	if list := bank.Introductions(); len(list) != 1 || !list[0].Used || list[0].Alias != "LOAN-1" || list[0].Subject != works {
		t.Errorf("the introductions are %+v", list)
	}

	c, err := bank.Specify(ctx, zoe.ID(), works, loan())
	w.must(err)
	id := c.ID.String()[:8]
	if err := bank.Forward(ctx, id); !errors.Is(err, policies.CodeNotAsked) {
		t.Errorf("forwarded before there is an order: %v", err)
	}
	w.looks(zoe, 1)
	if in := zoe.Inbox(false); len(in) != 1 || in[0].Source != works || in[0].SourceAlias != "employer" {
		t.Fatalf("the inbox holds %+v", in)
	}
	fields := []policies.Field{"income.net", "job.since"}
	if _, err := zoe.Answer(ctx, id, append(fields, "phone.mobile"), ""); !errors.Is(err, policies.CodeTooWide) {
		t.Errorf("a wider answer: %v", err)
	}
	_, err = zoe.Answer(ctx, id, fields, "")
	w.must(err)
	w.hears(bank, 3) // answer, receipt, slip
	if got := w.wantStatus(bank, c.ID, consent.Granted, fields...); got.Order != "here" || got.SourceAlias != "works" {
		t.Errorf("the request is %+v", got)
	}

	if e := newest(bank); e.Kind != EventSlip || e.Owner != zoe.ID() || e.Request != c.ID || e.Alias != "LOAN-1" {
		t.Errorf("the bank hears %+v", e)
	}

	// The bank holds the order and cannot open it, whatever it takes it for.
	bank.mu.Lock()
	entry, _, _, err := bank.own(id)
	w.must(err)
	slip, err := entry.slip()
	w.must(err)
	bank.mu.Unlock()
	key := pre.NewBlobKey(bank.root.KEMSeed())
	for _, kind := range []string{"deposit-order", "deposit-slip", "deposit-forward", "consent-answer"} {
		for _, to := range []policies.IdentityID{works, policies.IdentityID(bank.ID())} {
			info, err := pre.MessageInfo(kind, policies.IdentityID(zoe.ID()), to)
			w.must(err)
			if _, err := key.Open(info, slip.Sealed); err == nil {
				t.Errorf("the requester opened the order as %s to %s", kind, to)
			}
		}
	}
	// What it may read is empty yet, and nothing stands in for it.
	if got, err := bank.Collect(ctx, id); err != nil || got[0].Err == nil {
		t.Errorf("collected before the deposit: %+v, %v", got, err)
	}

	// Another than the named requester forwards it; the requester alters it, or gives it another hash.
	forwards := func(r *Reader, change func(*deposit.Forward)) {
		t.Helper()
		_, to, err := employer.identity(ctx, works)
		w.must(err)
		f := &deposit.Forward{
			Addressed: r.address("deposit-forward", works, slip.Answers, time.Hour), Customer: slip.From, Order: slip.Order, Sealed: bytes.Clone(slip.Sealed),
		}
		change(f)
		_, letter, err := seal[deposit.Forward](r.device, to, f)
		w.must(err)
		w.must(r.send(ctx, &letter))
	}
	forwards(mole, func(*deposit.Forward) {})
	w.wantRefused(employer, "forwarded by another", policies.CodeForwarder)
	forwards(bank, func(f *deposit.Forward) { f.Sealed[len(f.Sealed)/2] ^= 1 })
	w.wantRefused(employer, "altered by the requester", ErrUntrue)
	forwards(bank, func(f *deposit.Forward) { f.Order[0]++ })
	w.wantRefused(employer, "of another hash", policies.CodeSpecification)
	forwards(bank, func(f *deposit.Forward) { f.Customer = policies.IdentityID{7} })
	w.wantRefused(employer, "of somebody who is no customer", policies.CodeSender)

	w.must(bank.Forward(ctx, id))
	w.hears(employer, 1)
	if e := newest(employer); e.Kind != EventOrder || e.Owner != zoe.ID() || e.Request != c.ID || !slices.Equal(e.Fields, fields) || !e.Until.After(time.Now()) {
		t.Errorf("the employer hears %+v", e)
	}
	w.must(bank.Forward(ctx, id))
	w.wantRefused(employer, "forwarded a second time", policies.CodeOrderUsed)
	if list := employer.Orders(); len(list) != 1 || list[0].Name != "Bank" || list[0].Requester != policies.IdentityID(bank.ID()) || len(list[0].Asked) != 2 || list[0].Purpose.Text != "a loan" {
		t.Fatalf("the orders are %+v", list)
	}

	// Beyond the order, and without one.
	if err := employer.Deposit(ctx, id, set("phone.mobile", "x")); !errors.Is(err, policies.CodeTooWide) {
		t.Errorf("another field: %v", err)
	}
	if err := employer.Deposit(ctx, id, set("income.net", "y"), set("phone.mobile", "x")); !errors.Is(err, policies.CodeTooWide) {
		t.Errorf("another field besides: %v", err)
	}
	if err := mole.Deposit(ctx, id, set("income.net", "x")); !errors.Is(err, policies.CodeNotAsked) {
		t.Errorf("without an order: %v", err)
	}
	if err := employer.Write(ctx, zoe.ID(), set("phone.mobile", "x")); !errors.Is(err, policies.CodeNoWriteGrant) {
		t.Errorf("the vault, another field: %v", err)
	}
	now := employer.now
	employer.device.now = func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }
	if err := employer.Deposit(ctx, id, set("income.net", "x")); !errors.Is(err, policies.CodeWriteEnded) {
		t.Errorf("after its end: %v", err)
	}
	employer.device.now = now

	// Zoe's device does nothing from here on.
	income := `{"v":1,"type":"text","text":"2500"}`
	w.must(employer.Deposit(ctx, id, set("income.net", income)))
	if err := employer.Deposit(ctx, id, set("income.net", income)); !errors.Is(err, policies.CodeOrderUsed) {
		t.Errorf("deposited twice: %v", err)
	}
	w.must(employer.Deposit(ctx, id, set("job.since", `{"v":1,"type":"text","text":"2019"}`)))
	collected := func(want ...error) []Attested {
		t.Helper()
		got, err := bank.Collect(ctx, id)
		w.must(err)
		for i := range got {
			if !errors.Is(got[i].Err, want[i]) || (got[i].Err == nil) == (want[i] != nil) || got[i].Err != nil && got[i].Bytes != nil {
				t.Errorf("%s: %q, %v; want %v", got[i].Field, got[i].Bytes, got[i].Err, want[i])
			}
		}
		return got
	}
	got := collected(nil, nil)
	if string(got[0].Bytes) != income || got[0].Author != policies.AuthorID(works) || got[0].Source != works || len(got[0].Attestation) == 0 {
		t.Errorf("collected %+v", got[0])
	}

	// An attestation that is of another field; a value without one; one by somebody else.
	raw := w.read(bank, zoe, "income.net").Bytes
	w.must(employer.Write(ctx, zoe.ID(), Change{"job.since", raw}))
	collected(nil, policies.CodeAttestation)
	w.must(employer.Write(ctx, zoe.ID(), set("job.since", income)))
	collected(nil, policies.CodeAttestation)
	_, e, err := deposit.Unwrap(raw)
	w.must(err)
	swapped, err := deposit.Wrap([]byte(strings.Replace(income, "2500", "9500", 1)), e)
	w.must(err)
	w.must(employer.Write(ctx, zoe.ID(), Change{"income.net", swapped}))
	collected(policies.CodeAttestation, policies.CodeAttestation)
	for _, source := range []policies.IdentityID{policies.IdentityID(mole.ID()), works} { // in its own name, and in the employer's
		a, err := policies.Sign(mole.signing, &deposit.Attestation{
			Header: policies.NewHeader("deposit-attestation", time.Now()), Source: source, Owner: zoe.ID(), Requester: policies.IdentityID(bank.ID()), Field: "income.net",
			Specification: c.Request, Order: slip.Order, Value: policies.HashKey([]byte(income)),
		})
		w.must(err)
		forged, err := deposit.Wrap([]byte(income), a)
		w.must(err)
		w.must(employer.Write(ctx, zoe.ID(), Change{"income.net", forged}))
		collected(policies.CodeSource, policies.CodeAttestation)
	}

	// The owner's program opens what was deposited; ending the permission ends it.
	w.must(zoe.EndWrite(ctx, employer.ID(), nil))
	if err := employer.Write(ctx, zoe.ID(), Change{"income.net", raw}); !errors.Is(err, policies.CodeWriteEnded) && !errors.Is(err, policies.CodeNoWriteGrant) {
		t.Errorf("after the customer ended it: %v", err)
	}
	if in := zoe.Inbox(true); len(in) != 1 || !slices.Equal(in[0].Fields, fields) {
		t.Errorf("the inbox holds %+v", in)
	}
}

// TestTakingBackAnAnswer: an answer of which a part is refused is taken back once the vault can be reached, and nothing that another device gave meanwhile.
func TestTakingBackAnAnswer(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, m, employer, bank := w.threeWith()
	fields := []policies.Field{"income.net", "job.since"}
	c, err := bank.Specify(ctx, zoe.ID(), policies.IdentityID(employer.ID()), loan())
	w.must(err)
	w.looks(zoe, 1)
	w.secondRoute(false)
	w.hostile(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/grants") && r.Method == http.MethodPost:
			problem.Write(rw, policies.CodeGuardrail)
		case strings.HasSuffix(r.URL.Path, "/write-ends"):
			http.Error(rw, "silence", http.StatusBadGateway)
		default:
			next.ServeHTTP(rw, r)
		}
	})
	if _, err := zoe.Answer(ctx, c.ID.String()[:8], fields, ""); !errors.Is(err, policies.CodeGuardrail) && !errors.Is(err, ErrNotStopped) {
		t.Fatalf("an answer that is refused: %v", err)
	}
	w.hostile(nil)
	w.secondRoute(true)
	if len(zoe.state.Tasks) == 0 {
		t.Fatal("nothing waits to be taken back")
	}
	other := reopen(m.clone(), w)
	other.state.Tasks = nil
	w.must(other.GrantWrite(ctx, employer.ID(), fields[:1], GrantOptions{Purpose: "payroll"}))
	w.must(zoe.Sync(ctx))
	got := map[policies.Field]string{}
	for _, one := range zoe.Writers(false) {
		got[one.Field] += one.Purpose
	}
	if want := map[policies.Field]string{fields[0]: "payroll"}; !maps.Equal(got, want) {
		t.Errorf("the employer may write %v, want %v", got, want)
	}
}

// TestRefusedAnswer: when the bank is refused for good what the customer answered, the employer does not keep the half that came before it, and the request waits as it did. What
// the employer could write before it may write on.
func TestRefusedAnswer(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, employer, bank := w.three()
	works := policies.IdentityID(employer.ID())
	fields := []policies.Field{"income.net", "job.since"}
	c, err := bank.Specify(ctx, zoe.ID(), works, loan())
	w.must(err)
	w.looks(zoe, 1)
	id := c.ID.String()[:8]
	refuse := func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/grants") && r.Method == http.MethodPost {
			problem.Write(rw, policies.CodeGuardrail)
			return
		}
		next.ServeHTTP(rw, r)
	}
	refused := func(want ...policies.Field) {
		t.Helper()
		if in := zoe.Inbox(false); len(in) != 1 || in[0].Status != consent.Pending || in[0].Waits || len(zoe.state.Tasks) != 0 {
			t.Errorf("the inbox holds %+v, and %d tasks wait", in, len(zoe.state.Tasks))
		}
		var may []policies.Field
		for _, one := range zoe.Writers(false) {
			may = append(may, one.Field)
		}
		slices.Sort(may)
		if !slices.Equal(may, want) {
			t.Errorf("the employer may write %v, want %v", may, want)
		}
		for _, f := range fields {
			if err := employer.Write(ctx, zoe.ID(), set(f, "x")); (err == nil) != slices.Contains(want, f) {
				t.Errorf("the employer writes %s: %v", f, err)
			}
		}
	}
	if _, err := zoe.Answer(ctx, id, fields, policies.CustodySealed); !errors.Is(err, policies.CodeCustody) { // which this vault does not offer
		t.Errorf("an answer in a custody that is not offered: %v", err)
	}
	refused()
	w.hostile(refuse)
	if _, err := zoe.Answer(ctx, id, fields, ""); !errors.Is(err, policies.CodeGuardrail) {
		t.Errorf("an answer that is refused: %v", err)
	}
	refused()

	w.hostile(nil)
	w.must(zoe.GrantWrite(ctx, employer.ID(), fields[:1], GrantOptions{Purpose: "payroll", Duration: 48 * time.Hour}))
	before := zoe.Writers(false)
	w.hostile(refuse)
	if _, err := zoe.Answer(ctx, id, fields, ""); !errors.Is(err, policies.CodeGuardrail) {
		t.Errorf("an answer that is refused: %v", err)
	}
	refused(fields[0])
	if after := zoe.Writers(false); len(after) != 1 || after[0].Purpose != before[0].Purpose || !after[0].Expires.Equal(before[0].Expires) {
		t.Errorf("the employer may write as %+v, before as %+v", after, before)
	}

	w.hostile(nil)
	_, err = zoe.Answer(ctx, id, fields, "")
	w.must(err)
	w.hears(bank, 3)
	w.must(bank.Forward(ctx, id))
	w.hears(employer, 1)
	w.must(employer.Deposit(ctx, id, set("job.since", `{"v":1,"type":"text","text":"2019"}`)))
}

// newest is what happened last.
func newest(r *Reader) ConsentEvent {
	all := r.Events(0)
	return all[len(all)-1]
}

// TestIntroductionsUnderAttack: forged, expired and repeated introductions, and one by a stranger, change nothing.
func TestIntroductionsUnderAttack(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, employer, bank := w.three()
	works := policies.IdentityID(employer.ID())
	mole, _ := w.reader("Mole")
	eve, _ := w.owner()
	sends := func(d *device, from policies.IdentityID, change func(*registry.Introduction)) {
		t.Helper()
		_, to, err := bank.identity(ctx, bank.id)
		w.must(err)
		doc := &registry.Introduction{
			Addressed: d.address("introduction", bank.id, policies.Hash{}, time.Hour), Subject: works, Purpose: "a loan", Nonce: policies.NewNonce(),
		}
		change(doc)
		e, err := policies.Sign(d.signing, doc)
		w.must(err)
		info, err := pre.MessageInfo("introduction", from, bank.id)
		w.must(err)
		sealed, err := pre.SealBlob(to.KEMKey, info, e.Raw)
		w.must(err)
		letter := api.Message{From: d.id, To: bank.id, Type: "introduction", Expires: time.Now().Add(time.Hour).Unix(), Sealed: sealed}
		w.must(d.send(ctx, &letter))
	}
	sends(eve.device, eve.id, func(*registry.Introduction) {})
	w.wantRefused(bank, "by a stranger", policies.CodeSender)
	sends(eve.device, eve.id, func(d *registry.Introduction) { d.From = zoe.id })
	w.wantRefused(bank, "in a customer's name", policies.CodeSender)
	sends(eve.device, zoe.id, func(d *registry.Introduction) { d.From = zoe.id })
	w.wantRefused(bank, "sealed in a customer's name", ErrUntrue)
	sends(zoe.device, zoe.id, func(d *registry.Introduction) { d.From = eve.id })
	w.wantRefused(bank, "by a customer in another's name", ErrUntrue)
	sends(zoe.device, zoe.id, func(d *registry.Introduction) {
		d.Time, d.Expires = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	})
	w.wantRefused(bank, "that is over", policies.CodeIntroductionExpired)
	sends(mole.device, mole.id, func(d *registry.Introduction) { d.Subject, d.From = mole.id, mole.id })
	w.hears(bank, 1) // who introduces itself may be looked up, and is no contact by that
	if len(bank.Contacts()) != 1 || len(bank.Introductions()) != 1 {
		t.Errorf("contacts %v, introductions %v", bank.Contacts(), bank.Introductions())
	}

	// The same one again, and one that the registry knows.
	bank.mu.Lock()
	again := bank.state.Mail.Introductions[0]
	bank.state.Mail.Introductions[0].Used = false
	bank.mu.Unlock()
	e, err := envelope.Parse(again.Raw)
	w.must(err)
	m := &api.Message{From: zoe.id, To: bank.id, Type: "introduction"}
	if err := bank.takeIntroduction(ctx, m, e); !errors.Is(err, policies.CodeIntroductionUsed) {
		t.Errorf("the same message again: %v", err)
	}
	if _, err := bank.lookup(ctx, api.Lookup{Identity: works, Introduction: again.Raw}); !errors.Is(err, policies.CodeIntroductionUsed) {
		t.Errorf("shown to the registry again: %v", err)
	}
	if _, err := mole.lookup(ctx, api.Lookup{Identity: works, Introduction: again.Raw}); !errors.Is(err, policies.CodeNotIntroduced) {
		t.Errorf("shown by another: %v", err)
	}
	if _, err := bank.LookUp(ctx, works, "works"); err != nil { // the answer was lost, say
		t.Errorf("looked up again: %v", err)
	}

	// A registry that shows another identity in the place of one is found out.
	w.rewrite(api.PathLookups, func(body []byte) []byte {
		var found api.Found
		w.must(json.Unmarshal(body, &found))
		found.Identity = mole.base.Identity
		body, err := json.Marshal(found)
		w.must(err)
		return body
	})
	if _, err := bank.LookUp(ctx, works, "works"); !errors.Is(err, ErrUntrue) {
		t.Errorf("another identity: %v", err)
	}
	w.hostile(nil)
	if _, err := bank.party(ctx, works); err != nil {
		t.Error(err)
	}
}

// TestReadersOfDeposits: who reads what somebody wrote who is looked up by introduction only verifies it all the same, by the owner's grant.
func TestReadersOfDeposits(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, employer, _ := w.three()
	shop, _ := w.reader("Shop")
	code, err := zoe.Code()
	w.must(err)
	if _, err := shop.Connect(ctx, code, "zoe"); !errors.Is(err, policies.CodeNotIntroduced) {
		t.Errorf("connected by a code to who is looked up by introduction only: %v", err)
	}
	w.must(zoe.Register(ctx, registry.Anyone))
	w.connect(zoe, shop, "shop")
	w.must(zoe.GrantWrite(ctx, employer.ID(), []policies.Field{"income.net"}, GrantOptions{}))
	w.must(zoe.Grant(ctx, shop.ID(), []policies.Field{"income.net"}, GrantOptions{}))
	w.must(employer.Write(ctx, zoe.ID(), set("income.net", "2500")))
	w.wantBy(shop, zoe, "income.net", "2500", policies.AuthorID(employer.ID()))
}

// TestIntroducedEarly: who was introduced, and looked somebody up while everybody could, may still do so when only the introduced may.
func TestIntroducedEarly(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	zoe, _ := w.owner()
	employer, _ := w.reader("Works")
	bank, _ := w.reader("Bank")
	mole, _ := w.reader("Mole")
	w.connect(zoe, employer, "employer")
	w.connect(zoe, bank, "bank")
	w.must(zoe.Introduce(ctx, employer.ID(), bank.ID(), "my employer"))
	w.hears(bank, 1)
	for _, r := range []*Reader{bank, mole} {
		_, err := r.LookUp(ctx, policies.IdentityID(employer.ID()), "works")
		w.must(err)
	}
	w.must(employer.Register(ctx, registry.Introduced))
	if _, err := bank.LookUp(ctx, policies.IdentityID(employer.ID()), "works"); err != nil {
		t.Errorf("the bank: %v", err)
	}
	if _, err := mole.LookUp(ctx, policies.IdentityID(employer.ID()), "works"); !errors.Is(err, policies.CodeNotIntroduced) {
		t.Errorf("a stranger: %v", err)
	}
}
