package consent

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

var (
	now   = time.Unix(1_800_000_000, 0)
	acme  = policies.IdentityID{1}
	zoe   = policies.IdentityID{2}
	other = policies.IdentityID{3}
	asked = policies.Hash{4}
	hash  = policies.Hash{5}
)

func addressed(docType string, from, to policies.IdentityID, answers policies.Hash) Addressed {
	return Addressed{
		Header: policies.Header{Type: docType, Suite: policies.Suite, ID: policies.DocumentID{9}, Time: now.Unix()},
		From:   from, To: to, Answers: answers, Expires: now.Add(time.Hour).Unix(),
	}
}

func request() *Request {
	return &Request{
		Addressed: addressed("consent-request", acme, zoe, policies.Hash{}), Purpose: Purpose{"delivery", "DeliveryOfGoods"}, Duration: 86400, Nonce: policies.Nonce{1},
		Fields: []AskedField{{"address.home", true, "where to"}, {"phone.mobile", false, "when nobody opens"}},
	}
}

func answer(state State, fields ...policies.Field) *Answer {
	a := &Answer{Addressed: addressed("consent-answer", zoe, acme, asked), Nonce: policies.Nonce{1}, State: state, Fields: fields}
	if state == Granted || state == Partly {
		a.Until = now.Unix() + 86400
	}
	return a
}

func receipt() *Receipt {
	d := NewReceipt(zoe, request(), asked, answer(Partly, "address.home"), hash, now)
	d.ID = policies.DocumentID{9}
	return d
}

func deletion() *Deletion {
	return &Deletion{Addressed: addressed("deletion-request", zoe, acme, asked), Fields: []policies.Field{"phone.mobile"}, Stopped: 1, LastRead: 1}
}

func acceptance() *Acceptance {
	return &Acceptance{Addressed: addressed("invitation-answer", zoe, acme, policies.Hash{}), Invitation: []byte("x"), Nonce: policies.Nonce{1}}
}

type document interface {
	envelope.Document
	Validate() error
}

// TestForms holds each document to its form: as it is made it passes, strict JSON and back, and spoilt it is refused.
func TestForms(t *testing.T) {
	type rule struct {
		name  string
		spoil func(d document)
	}
	long := strings.Repeat("x", 301)
	for _, c := range []struct {
		valid func() document
		rules []rule
	}{
		{func() document { return request() }, []rule{
			{"answers something", func(d document) { d.(*Request).Answers = hash }},
			{"waits for ever", func(d document) { d.(*Request).Expires += int64(Lifetime / time.Second) }},
			{"no nonce", func(d document) { d.(*Request).Nonce = policies.Nonce{} }},
			{"for no time", func(d document) { d.(*Request).Duration = 0 }},
			{"for 101 years", func(d document) { d.(*Request).Duration = 101 * 365 * 86400 }},
			{"no field", func(d document) { d.(*Request).Fields = nil }},
			{"257 fields", func(d document) { d.(*Request).Fields = slices.Repeat(d.(*Request).Fields[:1], MaxFields+1) }},
			{"a field twice", func(d document) { d.(*Request).Fields[1].Field = "address.home" }},
			{"a field that is none", func(d document) { d.(*Request).Fields[0].Field = "Address" }},
			{"no reason", func(d document) { d.(*Request).Fields[0].Reason = "" }},
			{"a long reason", func(d document) { d.(*Request).Fields[0].Reason = long }},
			{"a reason that hides", func(d document) { d.(*Request).Fields[0].Reason = "a\u202eb" }},
			{"no purpose", func(d document) { d.(*Request).Purpose.Text = "" }},
			{"a purpose on two lines", func(d document) { d.(*Request).Purpose.Text = "a\nb" }},
			{"a purpose of 201 bytes", func(d document) { d.(*Request).Purpose.Text = long[:201] }},
			{"a term that is none", func(d document) { d.(*Request).Purpose.Term = "Fun" }},
			{"no term", func(d document) { d.(*Request).Purpose.Term = "" }},
		}},
		{func() document { return answer(Partly, "address.home") }, []rule{
			{"answers nothing", func(d document) { d.(*Answer).Answers = policies.Hash{} }},
			{"no nonce", func(d document) { d.(*Answer).Nonce = policies.Nonce{} }},
			{"pending", func(d document) { d.(*Answer).State = Pending }},
			{"no end", func(d document) { d.(*Answer).Until = 0 }},
			{"over before it begins", func(d document) { d.(*Answer).Until = now.Unix() }},
			{"grants nothing", func(d document) { d.(*Answer).Fields = nil }},
			{"denies something", func(d document) { d.(*Answer).State, d.(*Answer).Until = Denied, 0 }},
			{"a denial with an end", func(d document) { d.(*Answer).State, d.(*Answer).Fields = Denied, nil }},
			{"withdraws nothing", func(d document) { *d.(*Answer) = *answer(Withdrawn) }},
			{"fields out of order", func(d document) { d.(*Answer).Fields = []policies.Field{"b", "a"} }},
			{"a field twice", func(d document) { d.(*Answer).Fields = []policies.Field{"a", "a"} }},
			{"a field that is none", func(d document) { d.(*Answer).Fields = []policies.Field{""} }},
		}},
		{func() document { return receipt() }, []rule{
			{"no answer", func(d document) { d.(*Receipt).Answers = policies.Hash{} }},
			{"no request", func(d document) { d.(*Receipt).Record = policies.Hash{} }},
			{"no owner", func(d document) { d.(*Receipt).Principal = policies.IdentityID{} }},
			{"nobody asked", func(d document) { d.(*Receipt).Parties = nil }},
			{"asked by the owner", func(d document) { d.(*Receipt).Parties[0].ID = zoe }},
			{"from somebody else", func(d document) { d.(*Receipt).From = other }},
			{"to somebody else", func(d document) { d.(*Receipt).To = other }},
			{"two purposes", func(d document) { d.(*Receipt).Processing = slices.Repeat(d.(*Receipt).Processing, 2) }},
			{"no fields", func(d document) { d.(*Receipt).Processing[0].Information = nil }},
			{"implied", func(d document) { d.(*Receipt).Event.Type = "implied" }},
			{"pending", func(d document) { d.(*Receipt).Event.State = Pending }},
			{"another basis", func(d document) { d.(*Receipt).Processing[0].LawfulBasis = "contract" }},
			{"another way back", func(d document) { d.(*Receipt).Withdrawal = "by fax" }},
			{"no purpose", func(d document) { d.(*Receipt).Processing[0].Purpose = "" }},
		}},
		{func() document { return deletion() }, []rule{
			{"no field", func(d document) { d.(*Deletion).Fields = nil }},
			{"a field that is none", func(d document) { d.(*Deletion).Fields[0] = "-A" }},
			{"never stopped", func(d document) { d.(*Deletion).Stopped = 0 }},
			{"read before time began", func(d document) { d.(*Deletion).LastRead = -1 }},
		}},
		{func() document { return acceptance() }, []rule{
			{"no invitation", func(d document) { d.(*Acceptance).Invitation = nil }},
			{"a long one", func(d document) { d.(*Acceptance).Invitation = make([]byte, 513) }},
			{"no nonce", func(d document) { d.(*Acceptance).Nonce = policies.Nonce{} }},
			{"answers a document", func(d document) { d.(*Acceptance).Answers = hash }},
		}},
	} {
		name := c.valid().DocumentType()
		if err := c.valid().Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		back := reflect.New(reflect.TypeOf(c.valid()).Elem()).Interface()
		data, err := json.Marshal(c.valid())
		if err != nil {
			t.Fatal(err)
		}
		if err := envelope.Decode(data, back); err != nil || !reflect.DeepEqual(back, c.valid()) {
			t.Errorf("%s came back as %+v, %v", name, back, err)
		}
		of := func(d document) *Addressed {
			return reflect.ValueOf(d).Elem().FieldByName("Addressed").Addr().Interface().(*Addressed)
		}
		for _, r := range append(c.rules,
			rule{"another type", func(d document) { of(d).Type = "letter" }}, rule{"another suite", func(d document) { of(d).Suite = "SP2" }},
			rule{"no id", func(d document) { of(d).ID = policies.DocumentID{} }}, rule{"no time", func(d document) { of(d).Time = 0 }},
			rule{"from nobody", func(d document) { of(d).From = policies.IdentityID{} }}, rule{"to nobody", func(d document) { of(d).To = policies.IdentityID{} }},
			rule{"to oneself", func(d document) { of(d).To = of(d).From }}, rule{"over at once", func(d document) { of(d).Expires = of(d).Time }},
		) {
			d := c.valid()
			r.spoil(d)
			if err := d.Validate(); !errors.Is(err, policies.ErrMalformed) {
				t.Errorf("%s, %s: got %v, want ErrMalformed", name, r.name, err)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		grant []policies.Field
		want  State
		err   error
	}{
		{nil, Denied, nil},
		{[]policies.Field{"address.home"}, Partly, nil},
		{[]policies.Field{"address.home", "phone.mobile"}, Granted, nil},
		{[]policies.Field{"phone.mobile"}, "", policies.CodeRequired},
		{[]policies.Field{"address.home", "bank.iban"}, "", policies.CodeTooWide},
	} {
		if got, err := request().Decide(c.grant); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("granting %v: %q, %v", c.grant, got, err)
		}
	}
	if err := request().Live(now); err != nil {
		t.Error(err)
	}
	if err := request().Live(now.Add(time.Hour)); err != policies.CodeConsentExpired {
		t.Errorf("at its end: %v", err)
	}
}

func TestAccept(t *testing.T) {
	both := []policies.Field{"address.home", "phone.mobile"}
	for _, c := range []struct {
		name   string
		before State
		had    []policies.Field
		a      *Answer
		spoil  func(*Answer)
		state  State
		fields []policies.Field
		err    error
	}{
		{"all", Pending, nil, answer(Granted, both...), nil, Granted, both, nil},
		{"some", Pending, nil, answer(Partly, both[0]), nil, Partly, both[:1], nil},
		{"none", Pending, nil, answer(Denied), nil, Denied, nil, nil},
		{"given in time, come late", Expired, nil, answer(Denied), nil, Denied, nil, nil},
		{"given late", Expired, nil, answer(Denied), func(a *Answer) { a.Time = request().Expires }, "", nil, policies.CodeConsentExpired},
		{"a second time", Granted, both, answer(Granted, both...), nil, "", nil, policies.CodeAnswered},
		{"a grant after a denial", Denied, nil, answer(Granted, both...), nil, "", nil, policies.CodeAnswered},
		{"a grant after it was withdrawn", Withdrawn, nil, answer(Granted, both...), nil, "", nil, policies.CodeAnswered},
		{"to another request", Pending, nil, answer(Granted, both...), func(a *Answer) { a.Answers = hash }, "", nil, policies.CodeNotAsked},
		{"with another nonce", Pending, nil, answer(Granted, both...), func(a *Answer) { a.Nonce = policies.Nonce{2} }, "", nil, policies.CodeNotAsked},
		{"from another", Pending, nil, answer(Granted, both...), func(a *Answer) { a.From = other }, "", nil, policies.CodeNotAsked},
		{"to another", Pending, nil, answer(Granted, both...), func(a *Answer) { a.To = other }, "", nil, policies.CodeNotAsked},
		{"more", Pending, nil, answer(Granted, "address.home", "bank.iban", "phone.mobile"), nil, "", nil, policies.CodeTooWide},
		{"longer", Pending, nil, answer(Granted, both...), func(a *Answer) { a.Until++ }, "", nil, policies.CodeTooWide},
		{"not what is needed", Pending, nil, answer(Partly, both[1]), nil, "", nil, policies.CodeRequired},
		{"says all and gives some", Pending, nil, answer(Granted, both[0]), nil, "", nil, policies.ErrMalformed},
		{"says some and gives all", Pending, nil, answer(Partly, both...), nil, "", nil, policies.ErrMalformed},
		{"withdrawn in part", Granted, both, answer(Withdrawn, both[1]), nil, Partly, both[:1], nil},
		{"withdrawn", Partly, both[:1], answer(Withdrawn, both...), nil, Withdrawn, nil, nil},
		{"withdrawn again", Withdrawn, nil, answer(Withdrawn, both...), nil, Withdrawn, nil, nil},
		{"withdrawn before it was granted", Pending, nil, answer(Withdrawn, both...), nil, "", nil, policies.CodeNotAsked},
		{"withdrawn what was not asked for", Granted, both, answer(Withdrawn, "bank.iban"), nil, "", nil, policies.CodeTooWide},
	} {
		if c.spoil != nil {
			c.spoil(c.a)
		}
		state, fields, err := request().Accept(asked, c.before, c.had, c.a)
		if state != c.state || !slices.Equal(fields, c.fields) || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v, %v; want %q, %v, %v", c.name, state, fields, err, c.state, c.fields, c.err)
		}
	}
}

// TestReceipts: each side's receipt says who asked whom for what, why, and what was decided, and matches that and nothing else.
func TestReceipts(t *testing.T) {
	r := request()
	for _, a := range []*Answer{answer(Granted, "address.home", "phone.mobile"), answer(Partly, "address.home"), answer(Denied), answer(Withdrawn, "phone.mobile")} {
		for _, by := range []policies.IdentityID{acme, zoe} {
			d := NewReceipt(by, r, asked, a, hash, now)
			if err := d.Validate(); err != nil {
				t.Errorf("%s: %v", a.State, err)
			}
			if err := d.Matches(r, asked, a, hash); err != nil {
				t.Errorf("%s by %s: %v", a.State, by, err)
			}
			if d.From != by || d.To == by || d.Principal != zoe || d.Parties[0].ID != acme || d.Event.State != a.State {
				t.Errorf("%s: %+v", a.State, d)
			}
			allowed := 0
			for _, i := range d.Processing[0].Information {
				if i.Allowed {
					allowed++
				}
			}
			if want := map[State]int{Granted: 2, Partly: 1}[a.State]; allowed != want {
				t.Errorf("%s: %d fields are allowed", a.State, allowed)
			}
		}
	}
	a := answer(Partly, "address.home")
	for name, spoil := range map[string]func(*Receipt){
		"another request":   func(d *Receipt) { d.Record = hash },
		"another answer":    func(d *Receipt) { d.Answers = asked },
		"another owner":     func(d *Receipt) { d.Principal = other },
		"another state":     func(d *Receipt) { d.Event.State = Granted },
		"another time":      func(d *Receipt) { d.Event.Time++ },
		"longer":            func(d *Receipt) { d.Event.Validity++ },
		"another purpose":   func(d *Receipt) { d.Processing[0].PurposeType = Term("DirectMarketing").IRI() },
		"one field more":    func(d *Receipt) { d.Processing[0].Information[1].Allowed = true },
		"signed by another": func(d *Receipt) { d.From = other },
	} {
		d := receipt()
		spoil(d)
		if err := d.Matches(r, asked, a, hash); !errors.Is(err, policies.CodeNotAsked) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTerms(t *testing.T) {
	list := Terms()
	if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
		t.Error("the terms are not in order, each once")
	}
	for _, term := range list {
		if !term.Valid() || term.IRI() != "https://w3id.org/dpv#"+string(term) {
			t.Errorf("%s: valid %v, %s", term, term.Valid(), term.IRI())
		}
	}
}

func FuzzDocuments(f *testing.F) {
	key := envelope.NewSessionKey()
	for _, d := range []document{request(), answer(Granted, "address.home", "phone.mobile"), answer(Denied), receipt(), deletion(), acceptance()} {
		e, err := envelope.Seal(key, d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.Raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := envelope.Parse(data)
		if err != nil {
			return
		}
		if r, err := policies.Decode[Request](e); err == nil {
			if state, err := r.Decide(nil); state != Denied || err != nil {
				t.Errorf("denying: %q, %v", state, err)
			}
			if a, err := policies.Decode[Answer](e); err == nil {
				t.Errorf("a request and an answer: %+v", a)
			}
		}
		if a, err := policies.Decode[Answer](e); err == nil {
			state, fields, err := request().Accept(asked, Pending, nil, a)
			if err == nil && (state != a.State || len(fields) > 2) {
				t.Errorf("accepted as %q, %v: %+v", state, fields, a)
			}
		}
		if d, err := policies.Decode[Receipt](e); err == nil && d.Matches(request(), asked, answer(Denied), hash) == nil && d.Event.State != Denied {
			t.Errorf("a receipt of a denial: %+v", d)
		}
		if d, err := policies.Decode[Deletion](e); err == nil && len(d.Fields) == 0 {
			t.Error("deletion of nothing")
		}
		if d, err := policies.Decode[Acceptance](e); err == nil && d.Nonce.IsZero() {
			t.Error("accepted without a nonce")
		}
	})
}
