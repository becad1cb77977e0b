"""Pictures of forecasts, of their errors, and of what a network selects.

Every function returns a matplotlib `Figure`, which a notebook shows and `savefig` writes, or with
`backend="plotly"` a figure of plotly, to zoom in. Both libraries are imported when a picture is
drawn, not before.
"""

from tsm2.plotting.errors import plot_errors
from tsm2.plotting.figures import save_figure
from tsm2.plotting.forecasts import plot_forecast
from tsm2.plotting.selections import plot_selection, plot_what_if

__all__ = ["plot_errors", "plot_forecast", "plot_selection", "plot_what_if", "save_figure"]
