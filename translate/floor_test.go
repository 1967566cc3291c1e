package translate

import (
	"strings"
	"testing"

	"meshbridge/translate/apisix"
)

// What is lost without a feature is said of a construct, by the name that it has in the table.
func TestEveryFloorIsThatOfAConstruct(t *testing.T) {
	constructs := map[string]bool{}
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			constructs[row.Construct] = true
		}
	}
	named := map[apisix.Feature]bool{}
	for construct, features := range supportNeeds() {
		if !constructs[construct] {
			t.Errorf("%q is no construct", construct)
		}
		for _, f := range features {
			named[f] = true
			if insteadOf(f) == "" {
				t.Errorf("%s: nothing is lost without %s", construct, f)
			}
		}
	}
	text, _ := Explanation(codeTooOld)
	for _, f := range apisix.Features() {
		if instead := insteadOf(f); instead != "" && (!named[f] || !strings.Contains(text, f.Since().String()+", "+f.String()+": before, "+instead)) {
			t.Errorf("%s is of no construct, or not explained", f)
		}
	}
}
