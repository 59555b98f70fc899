package freeze

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
)

var now = time.Unix(1_800_000_000, 0)

func key(b byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey(&[envelope.SeedSize]byte{b})
}

func order(t testing.TB, change func(*Order)) []byte {
	t.Helper()
	o := &Order{
		Header: policies.NewHeader(orderType, now), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Operator: policies.IdentityID{3},
		Expires: now.Add(Lifetime).Unix(),
	}
	if change != nil {
		change(o)
	}
	e, err := envelope.Seal(key(3), o) // as it is, whether it is in order or not
	if err != nil {
		t.Fatal(err)
	}
	return e.Raw
}

func document(t testing.TB, change func(*Order)) *Document {
	return &Document{
		Header: policies.NewHeader(docType, now), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Operator: policies.IdentityID{4}, Order: order(t, change),
	}
}

// TestForm: a freeze has the orders of two different operators, for one vault and one owner, and the first one's is over after a day.
func TestForm(t *testing.T) {
	good := document(t, nil)
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	o, e, err := good.First()
	if err != nil || o.Operator != (policies.IdentityID{3}) || e.Verify(key(3).Public()) != nil {
		t.Errorf("the first operator's order: %v", err)
	}
	for what, d := range map[string]*Document{
		"an order for another vault":    document(t, func(o *Order) { o.Audience = policies.VaultID{9} }),
		"an order of another owner":     document(t, func(o *Order) { o.Owner = policies.OwnerID{9} }),
		"one operator twice":            document(t, func(o *Order) { o.Operator = policies.IdentityID{4} }),
		"an order by nobody":            document(t, func(o *Order) { o.Operator = policies.IdentityID{} }),
		"an order for a day and more":   document(t, func(o *Order) { o.Expires++ }),
		"an order that is over at once": document(t, func(o *Order) { o.Expires = o.Time }),
		"an order of another type":      document(t, func(o *Order) { o.Type = docType }),
	} {
		if err := d.Validate(); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func(*Document){
		"no vault":          func(d *Document) { d.Audience = policies.VaultID{} },
		"no owner":          func(d *Document) { d.Owner = policies.OwnerID{} },
		"no operator":       func(d *Document) { d.Operator = policies.IdentityID{} },
		"no order":          func(d *Document) { d.Order = nil },
		"half an order":     func(d *Document) { d.Order = d.Order[:100] },
		"an order and more": func(d *Document) { d.Order = append(bytes.Clone(d.Order), ' ', '{', '}') },
	} {
		d := document(t, nil)
		if change(d); d.Validate() == nil {
			t.Errorf("%s is taken", what)
		}
	}
	thaw := &Thaw{Header: policies.NewHeader(thawType, now), Audience: policies.VaultID{1}, Owner: policies.OwnerID{2}, Link: policies.Link{Seq: 1}}
	if err := thaw.Validate(); err != nil {
		t.Error(err)
	}
	if thaw.Seq = 0; thaw.Validate() == nil {
		t.Error("a thaw without a place in the chain is taken")
	}
}

func TestLive(t *testing.T) {
	o, _, err := document(t, nil).First()
	if err != nil {
		t.Fatal(err)
	}
	for at, live := range map[time.Duration]bool{-2 * time.Minute: false, -time.Minute: true, 0: true, Lifetime - time.Second: true, Lifetime: false} {
		if err := o.Live(now.Add(at)); (err == nil) != live {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

// TestEnds: a thaw ends what was frozen when it was decided, to the second, and is of no time to come.
func TestEnds(t *testing.T) {
	thaw := &Thaw{Header: policies.NewHeader(thawType, now)}
	for _, c := range []struct {
		frozen, now time.Duration
		ends        bool
	}{
		{-time.Hour, 0, true}, {0, 0, true}, {time.Second - time.Millisecond, time.Second, true}, {time.Second, time.Second, false}, {time.Hour, 2 * time.Hour, false},
		{-time.Hour, -policies.ClockSkew, true}, {-time.Hour, -policies.ClockSkew - time.Second, false}, {-time.Hour, 1000 * time.Hour, true},
	} {
		if err := thaw.Ends(now.Add(c.frozen), now.Add(c.now)); (err == nil) != c.ends || err != nil && !errors.Is(err, policies.CodeExpired) {
			t.Errorf("frozen at %s, sent at %s: %v", c.frozen, c.now, err)
		}
	}
}

func FuzzFreeze(f *testing.F) {
	e, err := envelope.Seal(key(4), document(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Raw)
	f.Add(order(f, nil))
	f.Add([]byte(`{"payloadType":"application/vnd.sallyport.thaw.v1+json","payload":"e30=","signatures":[{"sig":""}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := envelope.Parse(raw)
		if err != nil {
			return
		}
		if d, err := policies.Decode[Document](e); err == nil {
			o, _, err := d.First()
			if err != nil || o.Operator == d.Operator || o.Owner != d.Owner || o.Audience != d.Audience || o.Expires-o.Time > 86400 {
				t.Error("a freeze that is not of two operators, or not of one owner, was decoded")
			}
		}
		if d, err := policies.Decode[Order](e); err == nil && (d.Owner.IsZero() || d.Operator.IsZero()) {
			t.Error("an order of nobody was decoded")
		}
		if d, err := policies.Decode[Thaw](e); err == nil && d.Seq == 0 {
			t.Error("a thaw without a place was decoded")
		}
	})
}
