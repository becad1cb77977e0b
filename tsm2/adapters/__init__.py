"""TSM2 in other forecasting libraries: one file each, imported by its own name.

    tsm2.adapters.darts             pip install 'tsm2[darts]'
    tsm2.adapters.neuralforecast    pip install 'tsm2[neuralforecast]'
    tsm2.adapters.sktime            pip install 'tsm2[sktime]'
    tsm2.adapters.tslib             nothing more to install

The network is the same one; an adapter only translates.
"""

__all__: list[str] = []
